"""Tables as data: what conf/table says, the cells it asks for, and where their runs are."""
