"""The mask B^S of one batch at one layer, kept as its few parts instead of N x N cells.

Shape suffixes: B batch, H heads (1 where all heads share), N tokens, K diagonals, E edges.
Every gate is 0 or 1 in the forward pass; straight-through gates carry a gradient as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

DISTANCES_AT_ONCE = 16
# Up to so many diagonals of so long a text are kept as a map (see ``_band_bias``).
KEPT_DISTANCES = 16
KEPT_TOKENS = 512


@dataclass(frozen=True)
class SparseMask:
    """The union of diagonals, rows, columns and edges over the real tokens of a batch.

    Cell (i, j) is open, that is query i may attend to key j, where both tokens are real and at
    least one part covers it (Eq. 6, 7, 8 and 12). As a function of the gates it is
    ``1 - (1 - row_i)(1 - column_j)(1 - diagonal_|i-j|)(1 - edge_ij)``: Eq. 12 with the further
    parts joined by the same OR.

    Args:
        keep_BN: bool, true for real tokens, false for padding: at either end as a rule. Distances
            are those of positions, also where padding lies between (``has_holes``).
        rows_BHN: gates of whole rows: query i attends to every real token.
        columns_BHN: gates of whole columns: every query attends to key j.
        diagonals_BHK: gates of distances: entry k opens all cells with ``|i - j| = k``;
            distances of K and beyond are closed.
        edges_BE2: single cells (i, j), constant, without gradient; -1 fills up. An edge that
            is listed twice in one sample must not occur (``|`` takes care of it).
        window: the reach of an encoder that attends locally by itself: cells with
            ``|i - j| > window`` are closed whatever the parts say, and count as closed. None for
            an encoder in which every token may attend to every token.

    The leading dimensions of each gate may be 1 (the same for all samples, or for all heads).
    """

    keep_BN: Tensor
    rows_BHN: Tensor | None = None
    columns_BHN: Tensor | None = None
    diagonals_BHK: Tensor | None = None
    edges_BE2: Tensor | None = None
    window: int | None = None

    @property
    def lengths_B(self) -> Tensor:
        """The true length N of each sample, special tokens counted, padding not."""
        return self.keep_BN.sum(-1)

    @cached_property
    def is_unpadded(self) -> bool:
        """Whether all tokens are real."""
        return bool(self.keep_BN.all())

    @property
    def needs_gradient(self) -> bool:
        """Whether a gate of this mask is being learned in this forward pass."""
        gates = (self.rows_BHN, self.columns_BHN, self.diagonals_BHK)
        return torch.is_grad_enabled() and any(g is not None and g.requires_grad for g in gates)

    @property
    def has_holes(self) -> Tensor:
        """Whether padding lies between the real tokens of some text, bool ()."""
        begins_BN = self.keep_BN[:, 1:] & ~self.keep_BN[:, :-1]
        return (begins_BN.sum(-1) + self.keep_BN[:, 0] > 1).any()

    @property
    def is_full(self) -> bool:
        """Whether its rows, or its columns, open every cell between real tokens."""
        if self.window is not None and self.window < self.keep_BN.shape[-1] - 1:
            return False
        gates = (gates for gates in (self.rows_BHN, self.columns_BHN) if gates is not None)
        return any(bool(((own > 0) | ~self.keep_BN.unsqueeze(1)).all()) for own in gates)

    def __or__(self, other: SparseMask) -> SparseMask:
        """The cells that either mask opens (the OR of Eq. 8).

        Both must be of the same batch and layer.
        """
        assert self.window == other.window, "a union of masks of two windows is no SparseMask"
        return SparseMask(
            keep_BN=self.keep_BN,
            rows_BHN=_either(self.rows_BHN, other.rows_BHN),
            columns_BHN=_either(self.columns_BHN, other.columns_BHN),
            diagonals_BHK=_either(self.diagonals_BHK, other.diagonals_BHK),
            edges_BE2=_either_edges(self.edges_BE2, other.edges_BE2, self.keep_BN.shape[-1]),
            window=self.window,
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
            closed = closed * (1 - _by_distance(self.diagonals_BHK, num_tokens))
        if self.edges_BE2 is not None:
            closed = closed * (1 - self._edges_dense(num_tokens)).unsqueeze(1)
        cells = (1 - closed) * keep_BN[:, None, :, None] * keep_BN[:, None, None, :]
        if self.window is not None:
            cells = cells * _by_distance(cells.new_ones(self.window + 1), num_tokens)
        return cells

    def as_bias(self, dtype: torch.dtype) -> Tensor:
        """What is added to scores before a softmax: 0 in open cells of hard gates, -inf in others.

        (B or 1, H or 1, N, N). The rows of padding are open to all real tokens, so that no row is
        empty (in a sample that is nothing but padding they are open to everything). In few
        operations, of which a dozen take a tenth of a short text's attention.
        """
        num_tokens = self.keep_BN.shape[-1]
        # Values are not asked where the answer would break a graph or be waited for.
        on_cpu = self.keep_BN.is_cpu and not torch.compiler.is_compiling()
        if self.diagonals_BHK is not None:
            bias = _band_bias(self.diagonals_BHK, num_tokens, dtype, on_cpu)
        else:
            closed_1111 = self.keep_BN.new_full((1, 1, 1, 1), -torch.inf, dtype=dtype)
            bias = closed_1111.expand(-1, -1, num_tokens, num_tokens)
        if self.columns_BHN is not None:
            bias = torch.maximum(bias, _log(self.columns_BHN, dtype).unsqueeze(-2))
        if self.rows_BHN is not None:
            bias = torch.maximum(bias, _log(self.rows_BHN, dtype).unsqueeze(-1))
        if self.edges_BE2 is not None:
            cells_BNN = self._edges_dense(num_tokens)
            bias = torch.maximum(bias, _log(cells_BNN, dtype).unsqueeze(1))
        if self.window is not None:
            reach_11K = self.keep_BN.new_ones(1, 1, self.window + 1, dtype=torch.float)
            bias = torch.minimum(bias, _band_bias(reach_11K, num_tokens, dtype, on_cpu))
        if not (on_cpu and self.is_unpadded):
            padding_B1N1 = _log(~self.keep_BN, dtype)[:, None, :, None]
            real_B11N = _log(self.real_keys_BN, dtype)[:, None, None, :]
            bias = torch.clamp(bias, min=padding_B1N1, max=real_B11N)
        return bias

    @property
    def real_keys_BN(self) -> Tensor:
        """The real tokens; all tokens of a sample of padding alone, so that no row is empty."""
        return self.keep_BN | ~self.keep_BN.any(-1, keepdim=True)

    def kept_cells(self) -> Tensor:
        """|B^S| of Eq. 9, float of shape (B, H), differentiable in the gates.

        By inclusion and exclusion over the parts, so in O(N K + E) and never N x N. Exact for
        gates of 0 and 1, and equal to ``dense().sum()`` for any others.
        """
        keep_B1N = self.keep_BN.float().unsqueeze(1)
        rows = keep_B1N * (0 if self.rows_BHN is None else self.rows_BHN)
        columns = keep_B1N * (0 if self.columns_BHN is None else self.columns_BHN)
        free_rows, free_columns = torch.broadcast_tensors(keep_B1N - rows, keep_B1N - columns)
        # Not all cells less the closed ones: float32 would round the difference of large numbers.
        kept_BH = (rows * self._in_reach(keep_B1N)).sum(-1)
        kept_BH = kept_BH + (free_rows * self._in_reach(columns)).sum(-1)
        if self.diagonals_BHK is not None:
            num_diagonals = self._num_diagonals_in_reach
            free_BHK = _cells_by_distance(free_rows, free_columns, num_diagonals)
            kept_BH = kept_BH + (free_BHK * self.diagonals_BHK[..., : free_BHK.shape[-1]]).sum(-1)
        if self.edges_BE2 is not None:
            kept_BH = kept_BH + self._edges_alone(free_rows, free_columns)
        return kept_BH

    def sparsity(self) -> Tensor:
        """1 - |B^S| / N^2 of each sample, the mean over heads (Eq. 9), float of shape (B,).

        0 of a sample of padding alone, which has no cell that could be closed.
        """
        lengths_B1 = self.lengths_B.clamp_min(1).float().unsqueeze(-1)
        return (1 - self.kept_cells() / lengths_B1**2).mean(-1) * (self.lengths_B > 0)

    def _in_reach(self, gates_BHN: Tensor) -> Tensor:
        """For each token the sum of the gates within the window; (B, H, 1) where there is none."""
        if self.window is None:
            return gates_BHN.sum(-1, keepdim=True)
        num_tokens = gates_BHN.shape[-1]
        positions = torch.arange(num_tokens, device=gates_BHN.device)
        sums = F.pad(gates_BHN.cumsum(-1), (1, 0))
        ends = (positions + self.window + 1).clamp_max(num_tokens)
        return sums[..., ends] - sums[..., (positions - self.window).clamp_min(0)]

    @property
    def _num_diagonals_in_reach(self) -> int:
        assert self.diagonals_BHK is not None
        num_diagonals = self.diagonals_BHK.shape[-1]
        return num_diagonals if self.window is None else min(num_diagonals, self.window + 1)

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
        if self.window is not None:
            alone_BHE = alone_BHE * ((rows_BHE - columns_BHE).abs() <= self.window)
        if self.diagonals_BHK is not None:
            num_diagonals = self.diagonals_BHK.shape[-1]
            distance_BHE = (rows_BHE - columns_BHE).abs().clamp_max(num_diagonals)
            padded = F.pad(self.diagonals_BHK, (0, 1)).expand(*distance_BHE.shape[:2], -1)
            alone_BHE = alone_BHE * (1 - padded.gather(-1, distance_BHE))
        return alone_BHE.sum(-1)


def _log(gates: Tensor, dtype: torch.dtype) -> Tensor:
    logs = gates.log()
    return logs if logs.dtype == dtype else logs.to(dtype)


def _by_distance(gates: Tensor, num_tokens: int, beyond: float = 0.0) -> Tensor:
    """``gates[..., |i - j|]`` of each cell, (..., N, N), and ``beyond`` farther than the last."""
    gates = gates[..., :num_tokens]
    side = gates.new_full((*gates.shape[:-1], num_tokens - gates.shape[-1]), beyond)
    # The distances of the last row, and on.
    along_row = torch.cat([side, gates.flip(-1), gates[..., 1:], side], dim=-1)
    return along_row.unfold(-1, num_tokens, 1).flip(-2)


def _band_bias(gates_BHK: Tensor, num_tokens: int, dtype: torch.dtype, on_cpu: bool) -> Tensor:
    """0 in the cells of open diagonals and -inf in others; not to be written to.

    On a CPU those of a short text's few neighbours are kept, which all layers share: to lay them
    out anew takes a short text 5 to 10 % of its attention.
    """
    batch, heads, num_diagonals = gates_BHK.shape
    is_small = num_diagonals <= KEPT_DISTANCES and num_tokens <= KEPT_TOKENS
    if on_cpu and is_small and batch == heads == 1:
        return _kept_band_bias(tuple(gates_BHK.tolist()[0][0]), num_tokens, dtype)
    return _by_distance(_log(gates_BHK, dtype), num_tokens, -torch.inf)


@lru_cache(maxsize=16)  # of a megabyte at most
def _kept_band_bias(gates_K: tuple[float, ...], num_tokens: int, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # autograd will not keep a tensor of that mode
        logs_11K = _log(torch.tensor([[gates_K]], device="cpu"), dtype)
        return _by_distance(logs_11K, num_tokens, -torch.inf)


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
    num_diagonals = min(num_diagonals, free_rows.shape[-1])
    blocks = []
    # A few at a time: one by one they are many small operations, all at once they are N x K cells.
    for start in range(0, num_diagonals, DISTANCES_AT_ONCE):
        count = min(DISTANCES_AT_ONCE, num_diagonals - start)
        rows_BHNK, columns_BHNK = (
            F.pad(free[..., start:], (0, start + count - 1)).unfold(-1, count, 1)
            for free in (free_rows, free_columns)
        )
        above_BHNK = free_rows.unsqueeze(-1) * columns_BHNK
        blocks.append((above_BHNK + free_columns.unsqueeze(-1) * rows_BHNK).sum(-2))
    cells_BHK = torch.cat(blocks, dim=-1)
    return torch.cat([cells_BHK[..., :1] / 2, cells_BHK[..., 1:]], dim=-1)  # 0 is above and below
