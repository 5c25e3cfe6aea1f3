"""The mask B^S of one batch at one layer, kept as its few parts instead of N x N cells.

Shape suffixes: B batch, H heads (1 where all heads share), N tokens, K diagonals, E edges.
Every gate is 0 or 1 in the forward pass; straight-through gates carry a gradient as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class SparseMask:
    """The union of diagonals, rows, columns and edges over the real tokens of a batch.

    Cell (i, j) is open, that is query i may attend to key j, where both tokens are real and at
    least one part covers it (Eq. 6, 7, 8 and 12). As a function of the gates it is
    ``1 - (1 - row_i)(1 - column_j)(1 - diagonal_|i-j|)(1 - edge_ij)``: Eq. 12 with the further
    parts joined by the same OR.

    Args:
        keep_BN: bool, true for real tokens, false for padding (at either end, never inside).
        rows_BHN: gates of whole rows: query i attends to every real token.
        columns_BHN: gates of whole columns: every query attends to key j.
        diagonals_BHK: gates of distances: entry k opens all cells with ``|i - j| = k``;
            distances of K and beyond are closed.
        edges_BE2: single cells (i, j), constant, without gradient; -1 fills up. An edge that
            is listed twice in one sample must not occur (``|`` takes care of it).

    The leading dimensions of each gate may be 1 (the same for all samples, or for all heads).
    """

    keep_BN: Tensor
    rows_BHN: Tensor | None = None
    columns_BHN: Tensor | None = None
    diagonals_BHK: Tensor | None = None
    edges_BE2: Tensor | None = None

    @property
    def lengths_B(self) -> Tensor:
        """The true length N of each sample, special tokens counted, padding not."""
        return self.keep_BN.sum(-1)

    @property
    def needs_gradient(self) -> bool:
        """Whether a gate of this mask is being learned in this forward pass."""
        gates = (self.rows_BHN, self.columns_BHN, self.diagonals_BHK)
        return torch.is_grad_enabled() and any(g is not None and g.requires_grad for g in gates)

    def __or__(self, other: SparseMask) -> SparseMask:
        """The cells that either mask opens (the OR of Eq. 8). Both must be of the same batch."""
        return SparseMask(
            keep_BN=self.keep_BN,
            rows_BHN=_either(self.rows_BHN, other.rows_BHN),
            columns_BHN=_either(self.columns_BHN, other.columns_BHN),
            diagonals_BHK=_either(self.diagonals_BHK, other.diagonals_BHK),
            edges_BE2=_either_edges(self.edges_BE2, other.edges_BE2, self.keep_BN.shape[-1]),
        )

    def dense(self) -> Tensor:
        """The mask cell by cell, float of shape (B, H, N, N); cells of padding are 0."""
        keep_BN = self.keep_BN.float()
        num_tokens = keep_BN.shape[-1]
        closed = keep_BN.new_ones(1, 1, 1, 1)
        if self.rows_BHN is not None:
            closed = closed * (1 - self.rows_BHN).unsqueeze(-1)
        if self.columns_BHN is not None:
            closed = closed * (1 - self.columns_BHN).unsqueeze(-2)
        if self.diagonals_BHK is not None:
            closed = closed * (1 - self._diagonals_dense(num_tokens))
        if self.edges_BE2 is not None:
            closed = closed * (1 - self._edges_dense(num_tokens)).unsqueeze(1)
        return (1 - closed) * keep_BN[:, None, :, None] * keep_BN[:, None, None, :]

    def kept_cells(self) -> Tensor:
        """|B^S| of Eq. 9, float of shape (B, H), differentiable in the gates.

        By inclusion and exclusion over the parts, so in O(N K + E) and never N x N. Exact for
        gates of 0 and 1, and equal to ``dense().sum()`` for any others.
        """
        keep_BN = self.keep_BN.float()
        free_rows, free_columns = keep_BN.unsqueeze(1), keep_BN.unsqueeze(1)
        if self.rows_BHN is not None:
            free_rows = free_rows * (1 - self.rows_BHN)
        if self.columns_BHN is not None:
            free_columns = free_columns * (1 - self.columns_BHN)
        lengths_B1 = self.lengths_B.float().unsqueeze(-1)
        num_free_rows, num_free_columns = free_rows.sum(-1), free_columns.sum(-1)
        # Not N^2 - rows * columns: float32 would round the difference of two large numbers.
        kept_BH = (lengths_B1 - num_free_rows) * lengths_B1
        kept_BH = kept_BH + num_free_rows * (lengths_B1 - num_free_columns)
        free_rows, free_columns = torch.broadcast_tensors(free_rows, free_columns)
        if self.diagonals_BHK is not None:
            free_BHK = _cells_by_distance(free_rows, free_columns, self.diagonals_BHK.shape[-1])
            kept_BH = kept_BH + (free_BHK * self.diagonals_BHK[..., : free_BHK.shape[-1]]).sum(-1)
        if self.edges_BE2 is not None:
            kept_BH = kept_BH + self._edges_alone(free_rows, free_columns)
        return kept_BH

    def sparsity(self) -> Tensor:
        """1 - |B^S| / N^2 of each sample, the mean over heads (Eq. 9), float of shape (B,)."""
        lengths_B1 = self.lengths_B.clamp_min(1).float().unsqueeze(-1)
        return (1 - self.kept_cells() / lengths_B1**2).mean(-1)

    def _diagonals_dense(self, num_tokens: int) -> Tensor:
        assert self.diagonals_BHK is not None
        positions = torch.arange(num_tokens, device=self.keep_BN.device)
        distances_NN = (positions[:, None] - positions[None, :]).abs()
        num_diagonals = self.diagonals_BHK.shape[-1]
        return F.pad(self.diagonals_BHK, (0, 1))[..., distances_NN.clamp_max(num_diagonals)]

    def _edges_dense(self, num_tokens: int) -> Tensor:
        assert self.edges_BE2 is not None
        rows_BE, columns_BE = self.edges_BE2.unbind(-1)
        # Filled-up entries (-1) land in one cell behind the map, which is cut off.
        cell_BE = torch.where(rows_BE < 0, num_tokens**2, rows_BE * num_tokens + columns_BE)
        map_BC = torch.zeros(len(cell_BE), num_tokens**2 + 1, device=cell_BE.device)
        return map_BC.scatter_(1, cell_BE, 1.0)[:, :-1].view(-1, num_tokens, num_tokens)

    def _edges_alone(self, free_rows: Tensor, free_columns: Tensor) -> Tensor:
        """How many edges lie in no row, column or diagonal, float of shape (B, H)."""
        assert self.edges_BE2 is not None
        batch, heads = free_rows.shape[:2]
        if self.diagonals_BHK is not None:  # heads may differ in their diagonals alone
            heads = max(heads, self.diagonals_BHK.shape[1])
            free_rows, free_columns = (
                free.expand(-1, heads, -1) for free in (free_rows, free_columns)
            )
        rows_BHE, columns_BHE = (
            part.unsqueeze(1).expand(batch, heads, -1) for part in self.edges_BE2.unbind(-1)
        )
        alone_BHE = free_rows.gather(-1, rows_BHE.clamp_min(0)) * free_columns.gather(
            -1, columns_BHE.clamp_min(0)
        )
        alone_BHE = alone_BHE * (rows_BHE >= 0)
        if self.diagonals_BHK is not None:
            num_diagonals = self.diagonals_BHK.shape[-1]
            distance_BHE = (rows_BHE - columns_BHE).abs().clamp_max(num_diagonals)
            padded = F.pad(self.diagonals_BHK, (0, 1)).expand(*distance_BHE.shape[:2], -1)
            alone_BHE = alone_BHE * (1 - padded.gather(-1, distance_BHE))
        return alone_BHE.sum(-1)


def _either(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """The OR of two gates, a + b - ab (Eq. 12); the shorter of two diagonals is filled with 0."""
    if left is None or right is None:
        return left if right is None else right
    width = max(left.shape[-1], right.shape[-1])
    left, right = (F.pad(gate, (0, width - gate.shape[-1])) for gate in (left, right))
    return left + right - left * right


def _either_edges(left: Tensor | None, right: Tensor | None, num_tokens: int) -> Tensor | None:
    """Both lists of edges, each edge once."""
    if left is None or right is None:
        return left if right is None else right
    batch = max(len(left), len(right))
    edges_BE2 = torch.cat([left.expand(batch, -1, -1), right.expand(batch, -1, -1)], dim=1)
    cell_BE = torch.where(
        edges_BE2[..., 0] < 0, -1, edges_BE2[..., 0] * num_tokens + edges_BE2[..., 1]
    )
    cell_BE = cell_BE.sort(dim=-1).values
    repeated_BE = F.pad(cell_BE[:, 1:] == cell_BE[:, :-1], (1, 0), value=False)
    unused_BE = repeated_BE | (cell_BE < 0)
    edges_BE2 = torch.stack([cell_BE // num_tokens, cell_BE % num_tokens], dim=-1)
    return edges_BE2.masked_fill(unused_BE.unsqueeze(-1), -1)


def _cells_by_distance(free_rows: Tensor, free_columns: Tensor, num_diagonals: int) -> Tensor:
    """For each distance k < K, the sum of row_i * column_j over |i - j| = k; shape (B, H, K)."""
    num_tokens = free_rows.shape[-1]
    cells = []
    for distance in range(min(num_diagonals, num_tokens)):
        split = num_tokens - distance
        above = (free_rows[..., :split] * free_columns[..., distance:]).sum(-1)
        below = (free_rows[..., distance:] * free_columns[..., :split]).sum(-1)
        cells.append(above + below if distance else above)
    return torch.stack(cells, dim=-1)
