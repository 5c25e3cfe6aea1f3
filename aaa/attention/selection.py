"""What the heads of one text select: a ``SparseMask`` taken apart, text by text.

Shape suffixes: N real tokens of one text, K distances, E edges, M queries, X keys of a query.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.masks import SparseMask

PARTS = ("rows", "columns", "diagonals")


@dataclass(frozen=True)
class Selection:
    """The open parts of one text's mask, for heads that share them; padding cut off.

    Args:
        num_tokens: the text's true length N.
        rows_N, columns_N: bool, the whole rows and columns.
        diagonals_K: bool, entry k is distance k; K <= N.
        edges_E: single cells as ``i * N + j``, ascending, each once.
        window: reach beyond which every cell is closed; None where it closes nothing.
    """

    num_tokens: int
    rows_N: Tensor
    columns_N: Tensor
    diagonals_K: Tensor
    edges_E: Tensor
    window: int | None = None

    @property
    def device(self) -> torch.device:
        return self.rows_N.device

    def open_cells(self, queries_M1: Tensor, keys_MX: Tensor) -> Tensor:
        """Which of the cells (query, key) are open, bool (M, X); keys off the text are closed."""
        on_text = self.in_reach(queries_M1, keys_MX)
        return on_text & ~self.closed_by_others(queries_M1, keys_MX, besides=None)

    def in_reach(self, queries_M1: Tensor, keys_MX: Tensor) -> Tensor:
        """Whether each key is a token of the text and within the window of its query."""
        on_text = (keys_MX >= 0) & (keys_MX < self.num_tokens)
        if self.window is not None:
            on_text = on_text & ((queries_M1 - keys_MX).abs() <= self.window)
        return on_text

    def closed_by_others(self, queries_M1: Tensor, keys_MX: Tensor, besides: str | None) -> Tensor:
        """Where no part but ``besides`` opens the cell: there, its gate decides alone.

        That is the derivative of the cell by that gate: ``1 - (1 - row)(1 - column)...`` is linear
        in each of them.
        """
        queries_M1 = queries_M1.clamp(0, self.num_tokens - 1)
        keys_MX = keys_MX.clamp(0, self.num_tokens - 1)
        closed = torch.ones((), dtype=torch.bool, device=self.device)
        if besides != "rows":
            closed = closed & ~self.rows_N[queries_M1]
        if besides != "columns":
            closed = closed & ~self.columns_N[keys_MX]
        if besides != "diagonals":
            distances_MX = (queries_M1 - keys_MX).abs().clamp_max(len(self.diagonals_K))
            closed = closed & ~F.pad(self.diagonals_K, (0, 1))[distances_MX]
        if len(self.edges_E):
            cells_MX = queries_M1 * self.num_tokens + keys_MX
            at_MX = torch.searchsorted(self.edges_E, cells_MX).clamp_max(len(self.edges_E) - 1)
            closed = closed & (self.edges_E[at_MX] != cells_MX)
        return closed


@dataclass(frozen=True)
class TextHeads:
    """Heads of one text that share a selection, and where they lie in the batch."""

    text: int
    heads: slice
    tokens: slice
    selection: Selection

    def of(self, tensor_BHND: Tensor) -> Tensor:
        """The view of these heads and of the text's real tokens, (H, N, D) or (H, N)."""
        return tensor_BHND[self.text, self.heads, self.tokens]


def selections(mask: SparseMask, num_heads: int) -> Iterator[TextHeads]:
    """A text after another, and head by head where heads differ; empty texts are left out.

    Raises:
        ValueError: if padding lies between real tokens.
    """
    num_texts, num_tokens = mask.keep_BN.shape
    whole = mask.is_unpadded  # as one text is as a rule, and to ask is short
    if not whole and mask.has_holes:
        raise ValueError(
            "executor 'gathered' takes padding before and behind a text, and this attention mask "
            "has zeros between its ones; use 'auto', 'dense' or 'sdpa'"
        )
    gates = (mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK)
    differ = any(gate is not None and gate.shape[1] > 1 for gate in gates)
    rows, columns, diagonals = (None if g is None else g.detach() > 0 for g in gates)
    lengths = num_texts * [num_tokens] if whole else mask.lengths_B.tolist()
    starts = num_texts * [0] if whole else mask.keep_BN.int().argmax(-1).tolist()
    for text, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        if not length:
            continue
        tokens = slice(start, start + length)
        edges_E = _edges_of(mask, text, start, length)
        for head in range(num_heads if differ else 1):
            selection = Selection(
                num_tokens=length,
                rows_N=_gates_of(rows, text, head, tokens, mask),
                columns_N=_gates_of(columns, text, head, tokens, mask),
                diagonals_K=_gates_of(diagonals, text, head, slice(length), mask),
                edges_E=edges_E,
                window=mask.window if mask.window is not None and mask.window < length else None,
            )
            yield TextHeads(
                text, slice(head, head + 1) if differ else slice(None), tokens, selection
            )


def _gates_of(
    gates_BHN: Tensor | None, text: int, head: int, which: slice, mask: SparseMask
) -> Tensor:
    if gates_BHN is None:
        return mask.keep_BN.new_zeros(len(range(mask.keep_BN.shape[-1])[which]))
    batch, heads = gates_BHN.shape[:2]
    return gates_BHN[text % batch, head % heads, which]


def _edges_of(mask: SparseMask, text: int, start: int, length: int) -> Tensor:
    if mask.edges_BE2 is None:
        return mask.keep_BN.new_zeros(0, dtype=torch.long)
    edges_E2 = mask.edges_BE2[text % len(mask.edges_BE2)] - start
    real_E = ((edges_E2 >= 0) & (edges_E2 < length)).all(-1)
    rows_E, columns_E = edges_E2[real_E].unbind(-1)
    return (rows_E * length + columns_E).sort().values
