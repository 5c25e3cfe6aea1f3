"""A trained sparse encoder leaves the laboratory: exported, and measured on its own texts."""
