"""Single cells, and diagonals that lie alone: keys of each query's own.

Shape suffixes: H heads, N tokens of a text, D features, M queries of a chunk, X cells of a query,
E slots of a query, S cells of a chunk, W diagonals, R rows.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.attention.dense import closed_bias
from aaa.attention.selection import Selection

# What a cell of its own slot costs, in cells of a matrix product: fitted on a CPU to one thread
# and two, 2 to 128 of them a query in texts of 256 to 2,048 tokens.
SLOT_CELLS = 5
SUM = 0  # what PyTorch calls that mode of an embedding bag inside


class Slots:
    """Keys of each query's own: single cells, as many slots for every query as the most have.

    The sums are those of embedding bags, a bag a query (or a key, in ``spread``): a cell's key or
    value is read where it lies, where to fetch it first took 5 to 20 times as long.

    Args:
        keys_ME: the key of each slot; -1 for an empty one. M is at least the number of queries,
            rounded up to whole chunks.
    """

    block = 1

    def __init__(self, keys_ME: Tensor) -> None:
        self.keys_ME = keys_ME
        self.width = self.held = keys_ME.shape[1]
        self.layout: Hashable = self
        self.read_ME = keys_ME.clamp_min(0).int()  # what closed cells read counts for nothing
        queries_M = torch.arange(len(keys_ME), dtype=torch.int32, device=keys_ME.device)
        self.bags_S = queries_M.repeat_interleave(self.width)  # a chunk's are the first of these
        self.starts_M = queries_M * self.width
        self.by_key: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def take(self, tokens_HND: Tensor) -> Tensor:
        return tokens_HND.contiguous()

    def give(self, taken: Tensor, tokens_HND: Tensor) -> None:
        tokens_HND += taken

    def products(self, x_HMD: Tensor, first: int, taken: Tensor, cells_HMX: Tensor) -> None:
        read_S = self.read_ME[first : first + x_HMD.shape[1]].flatten()
        bags_S, starts_M = self.bags_S[: len(read_S)], self.starts_M[: x_HMD.shape[1]]
        dtype = torch.promote_types(x_HMD.dtype, torch.float32)  # CUDA has it not for bfloat16
        x_HMD, taken = x_HMD.to(dtype), taken.to(dtype)
        for x_MD, y_ND, cells_MX in zip(x_HMD, taken, cells_HMX, strict=True):
            # A bag's weights have these for their gradient: a row times what its bag sums.
            # (PyTorch has no other name for them.)
            products_S = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                x_MD, y_ND, read_S, starts_M, bags_S, SUM
            )
            cells_MX.copy_(products_S.view_as(cells_MX))

    def combine(self, cells_HMX: Tensor, first: int, taken: Tensor, x_HMD: Tensor) -> None:
        read_ME = self.read_ME[first : first + x_HMD.shape[1]]
        for cells_MX, y_ND, x_MD in zip(cells_HMX, taken, x_HMD, strict=True):
            weights_MX = cells_MX.contiguous()
            x_MD += F.embedding_bag(read_ME, y_ND, mode="sum", per_sample_weights=weights_MX)

    def spread(self, cells_HMX: Tensor, x_HMD: Tensor, first: int, taken: Tensor) -> None:
        if first not in self.by_key:
            self.by_key[first] = self._sorted_by_key(first, x_HMD.shape[1], taken.shape[1])
        cells_S, queries_S, starts_N = self.by_key[first]
        for cells_MX, x_MD, y_ND in zip(cells_HMX, x_HMD, taken, strict=True):
            weights_S = cells_MX.reshape(-1)[cells_S]
            y_ND += F.embedding_bag(
                queries_S, x_MD, starts_N, mode="sum", per_sample_weights=weights_S
            )

    def keys(self, queries_M1: Tensor) -> Tensor:
        return self.keys_ME[queries_M1.squeeze(-1)]

    def bias(self, first: int, count: int, elsewhere_N: Tensor | None) -> Tensor:
        return closed_bias(self.keys_ME[first : first + count] >= 0)

    def _sorted_by_key(
        self, first: int, count: int, num_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The chunk's used cells, their queries within it, and where each key's cells begin."""
        keys_X = self.keys_ME[first : first + count].flatten()
        used_S = (keys_X >= 0).nonzero().squeeze(-1)
        keys_S, order_S = keys_X[used_S].int().sort()
        cells_S = used_S[order_S]
        tokens_N = torch.arange(num_tokens, dtype=torch.int32, device=keys_S.device)
        starts_N = torch.searchsorted(keys_S, tokens_N, out_int32=True)
        return cells_S, (cells_S // self.width).int(), starts_N


def of_diagonals(selection: Selection, offsets: tuple[int, ...], num_queries: int) -> Tensor:
    """The key of each query in each diagonal, (M, W); -1 off the text and in open columns."""
    num_tokens, device = selection.num_tokens, selection.device
    queries_M1 = torch.arange(num_queries, device=device).unsqueeze(-1)
    keys_MW = queries_M1 + torch.tensor(offsets, device=device)
    is_cell_MW = (keys_MW >= 0) & (keys_MW < num_tokens)
    is_cell_MW &= ~selection.columns_N[keys_MW.clamp(0, num_tokens - 1)]
    return keys_MW.masked_fill(~is_cell_MW, -1)


def of_single_cells(selection: Selection, num_queries: int) -> tuple[list[Tensor], Tensor]:
    """The keys, (M, E), that no other part opens, -1 for none; and the rows that have too many."""
    num_tokens = selection.num_tokens
    none_R = selection.edges_E[:0]
    if not selection.edges_E.numel():
        return [], none_R
    rows_E, keys_E = selection.edges_E // num_tokens, selection.edges_E % num_tokens
    no_edges = replace(selection, edges_E=none_R)
    alone_E = no_edges.closed_by_others(rows_E, keys_E, besides=None)
    rows_E, keys_E = rows_E[alone_E], keys_E[alone_E]
    if not len(rows_E):
        return [], none_R
    counts_N = torch.bincount(rows_E, minlength=num_tokens)
    size = _cheapest_size(counts_N)
    crowded_N = counts_N > size
    crowded_R = crowded_N.nonzero().squeeze(-1)
    if not size:
        return [], crowded_R
    place_E = (
        torch.arange(len(rows_E), device=rows_E.device) - (counts_N.cumsum(0) - counts_N)[rows_E]
    )
    slotted_E = ~crowded_N[rows_E]
    keys_ME = rows_E.new_full((num_queries, size), -1)
    keys_ME[rows_E[slotted_E], place_E[slotted_E]] = keys_E[slotted_E]
    return [keys_ME], crowded_R


def _cheapest_size(counts_N: Tensor) -> int:
    """How many slots a query: rows with more single cells are computed whole instead."""
    sizes = torch.cat([counts_N.new_zeros(1), counts_N.unique()])
    crowded = (counts_N.unsqueeze(0) > sizes.unsqueeze(-1)).sum(-1)
    return int(sizes[(SLOT_CELLS * sizes + crowded).argmin()])
