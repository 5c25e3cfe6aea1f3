"""The parts that the keys of a query come from: columns, a band of diagonals, single edges.

Attention needs three sums over a part's cells, forward and backward alike, so each part has three
methods for them: ``products`` (scores of q and k; gradients of probabilities), ``combine``
(outputs; gradients of q) and ``spread`` (gradients of k and v). What they read or add to is the
keys or values of the text as ``take`` lays them out for the part; ``give`` adds that back.

Shape suffixes: H heads, N tokens of a text, D features, M queries of a chunk, X cells of a query,
K columns, E edges of a query, G blocks of a chunk, C queries of a block, W diagonals of a band.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.attention.dense import closed_bias

FEATURES = 64  # of a head, as far as chunks are sized by them


class Part(Protocol):
    """``width`` cells a query; a chunk holds a multiple of ``block`` queries, ``first`` on.

    ``held`` says how many numbers a query takes while it is at work.
    """

    width: int
    held: int
    block: int

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

    def close(self, cells_HMX: Tensor, first: int) -> None:
        """Sets cells to -inf that are not the part's, but are there for the sake of the layout."""


class Columns:
    """The same keys for every query: the given columns, or all tokens."""

    block = 1

    def __init__(self, positions_K: Tensor | None, num_tokens: int, device: torch.device) -> None:
        self.positions_K = positions_K
        self.all_K = torch.arange(num_tokens, device=device) if positions_K is None else None
        self.width = num_tokens if positions_K is None else len(positions_K)
        self.held = self.width

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
        torch.bmm(x_HMD, taken.mT, out=cells_HMX)

    def combine(self, cells_HMX: Tensor, first: int, taken: Tensor, x_HMD: Tensor) -> None:
        x_HMD.baddbmm_(cells_HMX, taken)

    def spread(self, cells_HMX: Tensor, x_HMD: Tensor, first: int, taken: Tensor) -> None:
        taken.baddbmm_(cells_HMX.mT, x_HMD)

    def keys(self, queries_M1: Tensor) -> Tensor:
        keys_K = self.all_K if self.positions_K is None else self.positions_K
        assert keys_K is not None
        return keys_K.unsqueeze(0)

    def close(self, cells_HMX: Tensor, first: int) -> None:
        pass


class Band:
    """The cells with ``lowest <= j - i <= highest``, block by block.

    C queries in a row meet the C + W - 1 keys around them in one small matrix product, of which W
    cells a query are the band's. A wide band leaves the others in place and closes them; a narrow
    one, where they are the most, keeps its own alone (``compact``).

    Args:
        open_W: which of the diagonals, ``lowest`` first, are open.
    """

    def __init__(self, lowest: int, open_W: Tensor, num_tokens: int, block: int) -> None:
        self.lowest, self.num_diagonals = lowest, len(open_W)
        self.num_tokens, self.block = num_tokens, block
        self.span = block + self.num_diagonals - 1
        self.compact = self.num_diagonals < block
        self.width = self.num_diagonals if self.compact else self.span
        self.held = self.width
        self.offsets_W = lowest + torch.arange(self.num_diagonals, device=open_W.device)
        # Key (column) less query (row) within a block, counted from the lowest diagonal.
        inside_CX = torch.arange(self.span, device=open_W.device) - torch.arange(
            block, device=open_W.device
        ).unsqueeze(-1)
        in_band_CX = (inside_CX >= 0) & (inside_CX < self.num_diagonals)
        if self.compact:
            opened = open_W
        else:
            opened = in_band_CX & open_W[inside_CX.clamp(0, self.num_diagonals - 1)]
        self.bias = None if bool(opened.all()) else closed_bias(opened)

    def take(self, tokens_HND: Tensor) -> Tensor:
        """Row t is key ``t + lowest``, zeros off the text."""
        num_blocks = -(-self.num_tokens // self.block)
        behind = num_blocks * self.block + self.lowest + self.num_diagonals - 1 - self.num_tokens
        return F.pad(tokens_HND, (0, 0, -self.lowest, behind)).contiguous()

    def give(self, taken: Tensor, tokens_HND: Tensor) -> None:
        start = max(0, self.lowest)
        taken = taken[:, start - self.lowest :]
        count = min(taken.shape[1], self.num_tokens - start)
        tokens_HND[:, start : start + count] += taken[:, :count]

    def products(self, x_HMD: Tensor, first: int, taken: Tensor, cells_HMX: Tensor) -> None:
        for x_MD, windows_GXD, cells_MX in zip(
            x_HMD, self._windows(taken, first, x_HMD.shape[1]), cells_HMX, strict=True
        ):
            products_GCX = torch.bmm(self._blocks(x_MD), windows_GXD.mT)
            if self.compact:
                products_GCX = self._diagonals(products_GCX)
            cells_MX.unflatten(0, (-1, self.block)).copy_(products_GCX)

    def combine(self, cells_HMX: Tensor, first: int, taken: Tensor, x_HMD: Tensor) -> None:
        for x_MD, windows_GXD, cells_MX in zip(
            x_HMD, self._windows(taken, first, x_HMD.shape[1]), cells_HMX, strict=True
        ):
            self._blocks(x_MD).baddbmm_(self._spanned(cells_MX), windows_GXD)

    def spread(self, cells_HMX: Tensor, x_HMD: Tensor, first: int, taken: Tensor) -> None:
        for x_MD, cells_MX, target_ND in zip(x_HMD, cells_HMX, taken, strict=True):
            sums_GXD = torch.bmm(self._spanned(cells_MX).mT, self._blocks(x_MD))
            # Windows overlap; pieces of them, a block long, do not.
            for start in range(0, self.span, self.block):
                piece_GXD = sums_GXD[:, start : start + self.block]
                self._strided(target_ND, first + start, len(sums_GXD), piece_GXD.shape[1]).add_(
                    piece_GXD
                )

    def keys(self, queries_M1: Tensor) -> Tensor:
        if self.compact:
            return queries_M1 + self.offsets_W
        starts_M1 = queries_M1 - queries_M1 % self.block
        return starts_M1 + self.lowest + torch.arange(self.span, device=queries_M1.device)

    def close(self, cells_HMX: Tensor, first: int) -> None:
        cells_HGCX = cells_HMX.unflatten(1, (-1, self.block))
        if self.bias is not None:
            cells_HGCX += self.bias
        # Only queries near the text's ends meet keys that are off it.
        num_queries, slack = cells_HMX.shape[1], self.block - 1
        highest = self.lowest + self.num_diagonals - 1
        head = min(max(0, slack - self.lowest - first), num_queries)
        tail = min(max(head, self.num_tokens - highest - slack - first), num_queries)
        queries_M1 = torch.arange(first, first + num_queries, device=cells_HMX.device)[:, None]
        for here in (slice(0, head), slice(tail, num_queries)):
            keys_MX = self.keys(queries_M1[here])
            off_MX = (keys_MX < 0) | (keys_MX >= self.num_tokens)
            cells_HMX[:, here].masked_fill_(off_MX, -torch.inf)

    def _blocks(self, x_MD: Tensor) -> Tensor:
        return x_MD.unflatten(0, (-1, self.block))

    def _strided(self, taken_ND: Tensor, first: int, num_blocks: int, length: int) -> Tensor:
        """From every block's start ``length`` tokens, a view (G, length, D)."""
        size = taken_ND.shape[-1]
        offset = taken_ND.storage_offset() + first * size
        return taken_ND.as_strided(
            (num_blocks, length, size), (self.block * size, size, 1), offset
        )

    def _windows(self, taken_HND: Tensor, first: int, num_queries: int) -> list[Tensor]:
        num_blocks = num_queries // self.block
        return [self._strided(taken, first, num_blocks, self.span) for taken in taken_HND]

    def _diagonals(self, products_GCX: Tensor) -> Tensor:
        """The band's own cells, a view (G, C, W) of those that a block computes."""
        num_blocks = len(products_GCX)
        return products_GCX.as_strided(
            (num_blocks, self.block, self.num_diagonals),
            (self.block * self.span, self.span + 1, 1),
            products_GCX.storage_offset(),
        )

    def _spanned(self, cells_MX: Tensor) -> Tensor:
        """Cells as (G, C, C + W - 1), 0 where they are not the band's."""
        cells_GCX = cells_MX.unflatten(0, (-1, self.block))
        if not self.compact:
            return cells_GCX
        spanned_GCX = cells_MX.new_zeros(len(cells_GCX), self.block, self.span)
        self._diagonals(spanned_GCX).copy_(cells_GCX)
        return spanned_GCX


class Slots:
    """Keys of each query's own: single cells, as many slots for every query as the most have.

    Args:
        keys_ME: the key of each slot; -1 for an empty one. M is at least the number of queries,
            rounded up to whole chunks.
    """

    block = 1

    def __init__(self, keys_ME: Tensor) -> None:
        self.keys_ME = keys_ME
        self.width = keys_ME.shape[1]
        self.held = self.width * FEATURES

    def take(self, tokens_HND: Tensor) -> Tensor:
        return tokens_HND.contiguous()  # once, for index_select

    def give(self, taken: Tensor, tokens_HND: Tensor) -> None:
        tokens_HND += taken

    def products(self, x_HMD: Tensor, first: int, taken: Tensor, cells_HMX: Tensor) -> None:
        keys_HMED = self._gathered(taken, first, x_HMD.shape[1])
        cells_HMX.copy_((keys_HMED @ x_HMD.unsqueeze(-1)).squeeze(-1))

    def combine(self, cells_HMX: Tensor, first: int, taken: Tensor, x_HMD: Tensor) -> None:
        values_HMED = self._gathered(taken, first, x_HMD.shape[1])
        x_HMD += (cells_HMX.unsqueeze(-2) @ values_HMED).squeeze(-2)

    def spread(self, cells_HMX: Tensor, x_HMD: Tensor, first: int, taken: Tensor) -> None:
        keys = self._chunk(first, x_HMD.shape[1]).clamp_min(0).flatten()
        taken.index_add_(1, keys, (cells_HMX.unsqueeze(-1) * x_HMD.unsqueeze(-2)).flatten(1, 2))

    def keys(self, queries_M1: Tensor) -> Tensor:
        return self.keys_ME[queries_M1.squeeze(-1)]

    def close(self, cells_HMX: Tensor, first: int) -> None:
        cells_HMX.masked_fill_(self._chunk(first, cells_HMX.shape[1]) < 0, -torch.inf)

    def _chunk(self, first: int, num_queries: int) -> Tensor:
        return self.keys_ME[first : first + num_queries]

    def _gathered(self, taken: Tensor, first: int, num_queries: int) -> Tensor:
        keys_ME = self._chunk(first, num_queries).clamp_min(0)
        return taken.index_select(1, keys_ME.flatten()).unflatten(1, keys_ME.shape)
