"""Triton kernels of attention under axes and diagonals; ``launch`` calls them.

A mask of rows, columns and diagonals falls into parts that do not overlap, so that every cell is
counted once: a query whose row is open attends to all keys; any other query to the keys in the
list of open columns, and to the keys of its band that are not in that list. Seen from the keys it
is the same picture transposed. So each kernel has an *own* axis (queries, or keys for their
gradients) and an *other* one, and two kinds of programs: *listed* ones, a gathered tile of the
open gates of the own axis against everything, and *plain* ones, a tile of neighbours against the
list of the other axis and its band. A program writes only what is its own: no atomics, the same
bits in every run. Lists stand in memory as (index, count), so nothing waits for the host.

Offsets: ``i`` queries, ``j`` keys; a span is the first real token and the one after the last.
Gates are int8 of shape (B, 1 or H, N), lists int32 of the same shape, counts (B, 1 or H).
"""
