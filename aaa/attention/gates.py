"""The gradients of gates in ``gathered``: those of open ones exactly, of closed ones by sampling.

A gate's gradient is the sum, over the cells that it decides alone, of ``weight_ij (dP_ij - D_i)``
with ``weight_ij = exp(score_ij) / sum of the row's open exp(score)``, dP the gradient of the
probabilities and D their mean under them: what ``dense`` computes for every cell. The cells of
open gates are those that attention has computed anyway. The cells of closed gates are N x N, so
of them a sample is computed (``SAMPLED_TOKENS``).

Shape suffixes: as in ``passes``; S sampled tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aaa.attention.selection import PARTS, Selection, TextHeads
from aaa.masks import SparseMask

# From the cells of so many random queries (for closed columns and diagonals), and of so many
# random keys (for closed rows), the gradients of closed gates are estimated, without bias.
SAMPLED_TOKENS = 32


class GateGradients:
    """Gradients of the gates of a mask that are being learned, each of its gate's shape."""

    def __init__(self, mask: SparseMask, learned: dict[str, bool]) -> None:
        gates = {
            "rows": mask.rows_BHN, "columns": mask.columns_BHN, "diagonals": mask.diagonals_BHK,
        }  # fmt: skip
        self.of: dict[str, Tensor] = {
            name: torch.zeros_like(gate)
            for name, gate in gates.items()
            if gate is not None and learned[name]
        }

    def of_heads(self, heads: TextHeads) -> HeadGateGradients:
        """Those of one text's heads, as views: what is added there is added here."""
        first_head = heads.heads.start or 0
        views = {}
        for name, gradient in self.of.items():
            which = slice(None) if name == "diagonals" else heads.tokens
            of_text_HN = gradient[heads.text % len(gradient)]
            views[name] = of_text_HN[first_head % len(of_text_HN), which]
        return HeadGateGradients(heads.selection, views)


class HeadGateGradients:
    """Gradients of the gates of one selection, (N,) or (K,) each."""

    def __init__(self, selection: Selection, of: dict[str, Tensor]) -> None:
        self.selection, self.of = selection, of

    def __bool__(self) -> bool:
        return bool(self.of)

    def add(
        self,
        cells_MX: Tensor,
        queries_M1: Tensor,
        keys_MX: Tensor,
        gates: tuple[str, ...] = PARTS,
        scale: float = 1.0,
    ) -> None:
        """Adds the gradients of cells to those of the gates that decide them alone."""
        for name in gates:
            if name not in self.of:
                continue
            target = self.of[name]
            alone_MX = self.selection.closed_by_others(queries_M1, keys_MX, besides=name)
            alone_MX = alone_MX & self.selection.in_reach(queries_M1, keys_MX)
            of_gate_MX = (cells_MX * alone_MX).to(target.dtype) * scale
            if name == "rows":
                place, of_gate_MX = queries_M1.squeeze(-1), of_gate_MX.sum(1)
            elif name == "columns" and len(keys_MX) == 1:
                place, of_gate_MX = keys_MX.squeeze(0), of_gate_MX.sum(0)
            elif name == "columns":
                place = keys_MX
            else:
                place = (queries_M1 - keys_MX).abs()
                of_gate_MX = of_gate_MX.masked_fill(place >= len(target), 0.0)
            place = place.clamp(0, len(target) - 1)
            target.index_add_(0, place.flatten(), of_gate_MX.flatten())


def sampled_tokens(num_tokens: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Up to ``SAMPLED_TOKENS`` different positions, all equally likely, (S,)."""
    order = torch.rand(num_tokens, generator=generator, device=device).argsort()
    return order[:SAMPLED_TOKENS]
