"""The parts that the keys of a query come from: columns, bands of diagonals (and ``slots``).

Attention needs three sums over a part's cells, forward and backward alike, so each part has three
methods for them: ``products`` (scores of q and k; gradients of probabilities), ``combine``
(outputs; gradients of q) and ``spread`` (gradients of k and v). What they read or add to is the
keys or values of the text as ``take`` lays them out for the part; ``give`` adds that back.

Shape suffixes: H heads, N tokens of a text, D features, M queries of a chunk, X cells of a query,
K columns, G blocks of a chunk, C queries of a block, W diagonals of a band.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.attention.dense import closed_bias


class Part(Protocol):
    """``width`` cells a query; a chunk holds a multiple of ``block`` queries, ``first`` on.

    ``held`` says how many numbers a query takes while it is at work. Parts of the same ``layout``
    take the same of the same tokens.
    """

    width: int
    held: int
    block: int
    layout: Hashable

    def take(self, tokens_HND: Tensor) -> Tensor:
        """Keys or values as this part reads them."""

    def give(self, taken: Tensor, tokens_HND: Tensor) -> None:
        """Adds gradients of what ``take`` returned to those of the tokens."""

    def products(self, x_HMD: Tensor, first: int, taken: Tensor, cells_HMX: Tensor) -> None:
        """``cells_ij = x_i . y_j``, written to ``cells_HMX``."""

    def combine(self, cells_HMX: Tensor, first: int, taken: Tensor, x_HMD: Tensor) -> None:
        """``x_i += sum_j cells_ij y_j``."""

    def spread(self, cells_HMX: Tensor, x_HMD: Tensor, first: int, taken: Tensor) -> None:
        """``y_j += sum_i cells_ij x_i``."""

    def keys(self, queries_M1: Tensor) -> Tensor:
        """The key of each cell, (M, X) or (1, X); those off the text are no cells."""

    def bias(self, first: int, count: int, elsewhere_N: Tensor | None) -> Tensor | None:
        """What closes cells that are there for the sake of the layout alone: 0 and -inf, (M, X).

        Of ``count`` queries from the ``first`` on; None for nothing.

        Args:
            elsewhere_N: bool, keys that every query meets in another part of the same pass.
        """


class Columns:
    """The same keys for every query: the given columns, or all tokens."""

    block = 1

    def __init__(self, positions_K: Tensor | None, num_tokens: int, device: torch.device) -> None:
        self.positions_K = positions_K
        self.all_K = torch.arange(num_tokens, device=device) if positions_K is None else None
        self.width = num_tokens if positions_K is None else len(positions_K)
        self.held = self.width
        self.layout: Hashable = self

    def take(self, tokens_HND: Tensor) -> Tensor:
        if self.positions_K is None:
            return tokens_HND
        return tokens_HND[:, self.positions_K]  # index_select would copy all of them first

    def give(self, taken: Tensor, tokens_HND: Tensor) -> None:
        if self.positions_K is None:
            tokens_HND += taken
        else:
            tokens_HND.index_add_(1, self.positions_K, taken)

    def products(self, x_HMD: Tensor, first: int, taken: Tensor, cells_HMX: Tensor) -> None:
        _multiply(x_HMD, taken.mT, cells_HMX)

    def combine(self, cells_HMX: Tensor, first: int, taken: Tensor, x_HMD: Tensor) -> None:
        x_HMD.baddbmm_(cells_HMX, taken)

    def spread(self, cells_HMX: Tensor, x_HMD: Tensor, first: int, taken: Tensor) -> None:
        taken.baddbmm_(cells_HMX.mT, x_HMD)

    def keys(self, queries_M1: Tensor) -> Tensor:
        keys_K = self.all_K if self.positions_K is None else self.positions_K
        assert keys_K is not None
        return keys_K.unsqueeze(0)

    def bias(self, first: int, count: int, elsewhere_N: Tensor | None) -> None:
        return None


class Band:
    """The cells with ``lowest <= j - i <= highest``, block by block.

    C queries in a row meet the C + W - 1 keys around them in one small matrix product, and cells
    that are not the band's are closed. The heads' tokens stand one after another, so that all
    blocks of all heads are one product: where a window reaches over its text's ends it meets
    another head's tokens, and those cells are closed as well.

    Args:
        open_W: which of the diagonals, ``lowest`` first, are open.
        margin: how far all bands of the pass reach beyond either end of a text.
    """

    def __init__(
        self, lowest: int, open_W: Tensor, num_tokens: int, block: int, margin: int
    ) -> None:
        self.lowest, self.num_tokens, self.block = lowest, num_tokens, block
        self.margin = margin
        self.layout: Hashable = margin
        self.width = self.held = block + len(open_W) - 1
        self.padded = -(-num_tokens // block) * block
        # Key (column) less query (row) within a block, counted from the lowest diagonal.
        queries_C, self.keys_X = (
            torch.arange(count, device=open_W.device) for count in (block, self.width)
        )
        inside_CX = self.keys_X - queries_C.unsqueeze(-1)
        in_band_CX = (inside_CX >= 0) & (inside_CX < len(open_W))
        self.bias_CX = closed_bias(in_band_CX & open_W[inside_CX.clamp(0, len(open_W) - 1)])

    def take(self, tokens_HND: Tensor) -> Tensor:
        """All heads' tokens in one list, (rows, D), each head's filled up to whole blocks."""
        num_heads, num_tokens, size = tokens_HND.shape
        end = self.margin + num_heads * self.padded
        taken = tokens_HND.new_empty(end + self.margin, size)
        taken[: self.margin] = 0
        taken[end:] = 0
        by_head_HND = self._by_head(taken, num_heads)
        by_head_HND[:, :num_tokens] = tokens_HND
        by_head_HND[:, num_tokens:] = 0
        return taken

    def give(self, taken: Tensor, tokens_HND: Tensor) -> None:
        tokens_HND += self._by_head(taken, len(tokens_HND))[:, : tokens_HND.shape[1]]

    def products(self, x_HMD: Tensor, first: int, taken: Tensor, cells_HMX: Tensor) -> None:
        for heads, windows_GXD in self._windows(taken, first, x_HMD):
            cells_GCX = self._blocks(cells_HMX[heads])
            _multiply(self._blocks(x_HMD[heads]), windows_GXD.mT, cells_GCX)

    def combine(self, cells_HMX: Tensor, first: int, taken: Tensor, x_HMD: Tensor) -> None:
        for heads, windows_GXD in self._windows(taken, first, x_HMD):
            self._blocks(x_HMD[heads]).baddbmm_(self._blocks(cells_HMX[heads]), windows_GXD)

    def spread(self, cells_HMX: Tensor, x_HMD: Tensor, first: int, taken: Tensor) -> None:
        for heads, windows_GXD in self._windows(taken, first, x_HMD):
            sums_GXD = self._blocks(cells_HMX[heads]).mT @ self._blocks(x_HMD[heads])
            # Windows overlap; pieces of them, a block long, do not.
            for start in range(0, self.width, self.block):
                piece = slice(start, start + self.block)
                windows_GXD[:, piece].add_(sums_GXD[:, piece])

    def keys(self, queries_M1: Tensor) -> Tensor:
        return queries_M1 - queries_M1 % self.block + self.lowest + self.keys_X

    def bias(self, first: int, count: int, elsewhere_N: Tensor | None) -> Tensor:
        closed_N = self.bias_CX.new_zeros(self.num_tokens)
        if elsewhere_N is not None:
            closed_N = torch.where(elsewhere_N, -torch.inf, closed_N)
        behind = self.padded - self.num_tokens + self.margin
        closed = F.pad(closed_N, (self.margin, behind), value=-torch.inf)
        windows_GX = closed[self.margin + self.lowest + first :].unfold(0, self.width, self.block)
        bias_GCX = windows_GX[: count // self.block].unsqueeze(1) + self.bias_CX
        return bias_GCX.flatten(0, 1)

    def _by_head(self, taken: Tensor, num_heads: int) -> Tensor:
        rows = taken[self.margin : self.margin + num_heads * self.padded]
        return rows.unflatten(0, (num_heads, self.padded))

    def _blocks(self, x_HMD: Tensor) -> Tensor:
        return x_HMD.view(-1, self.block, x_HMD.shape[-1])

    def _windows(self, taken: Tensor, first: int, x_HMD: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The keys of each block of a chunk, views (G, C + W - 1, D), for heads at once or one."""
        num_heads, num_queries, size = x_HMD.shape
        at_once = num_heads if num_queries == self.padded else 1
        for head in range(0, num_heads, at_once):
            start = self.margin + self.lowest + head * self.padded + first
            windows_GXD = taken.as_strided(
                (at_once * num_queries // self.block, self.width, size),
                (self.block * size, size, 1),
                taken.storage_offset() + start * size,
            )
            yield slice(head, head + at_once), windows_GXD


def _multiply(left: Tensor, right: Tensor, result: Tensor) -> None:
    """The products of a batch of matrices, written to ``result``, which may be part of another."""
    if result.is_contiguous():
        torch.bmm(left, right, out=result)
    else:  # there, one product after another
        result.copy_(torch.bmm(left, right))
