"""Triton kernels of attention under axes and diagonals; ``launch`` calls them.

A mask of rows, columns and diagonals falls into parts that do not overlap, so that every cell is
counted once: a query whose row is open attends to all keys; any other query to the keys in the
list of open columns, and to the keys of its band that are not in that list. Seen from the keys it
is the same picture transposed. So each kernel has an *own* axis (queries, or keys for their
gradients) and an *other* one, and two kinds of programs: *listed* ones, a gathered tile of the
open gates of the own axis against everything, and *plain* ones, a tile of neighbours against the
list of the other axis and its band. The walk of a listed tile is as long as the text, so several
programs divide it and another kernel joins what they found. A program writes only what is its own:
no atomics, the same bits in every run. Lists stand in memory as (index, count), so nothing waits
for the host.

Offsets: ``i`` queries, ``j`` keys; a span is the first real token and the one after the last.
Queries, keys, values, outputs and their gradients lie in memory as (B, N, H, D). Gates are int8
(2, B, L, N), rows before columns, with L = 1 where heads share them and else H; lists are int32 of
the same shape, their counts (2, B, L), spans (B, 2). Diagonals are (1 or B, 1 or H, K). Figures of
queries are float32 (B, H, N). What programs leave to be joined is float32, one block (B, H, N, D)
after another.
"""
