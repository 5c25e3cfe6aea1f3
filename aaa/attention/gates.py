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

from aaa.attention.parts import Columns, Part
from aaa.attention.passes import Chunk
from aaa.attention.selection import Selection, TextHeads
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

    def any_of(self, *gates: str) -> bool:
        """Whether any of these gates is being learned."""
        return any(name in self.of for name in gates)

    def add_all(self, chunk: Chunk, cells_MX: Tensor) -> None:
        """Adds the gradients of all cells of a chunk, open and closed."""
        keys_MX = chunk.owner.keys(chunk.queries_M1)
        for gate in self.of:
            self._add(gate, cells_MX * self._alone(chunk, gate, keys_MX), chunk, keys_MX)

    def add_open(self, chunk: Chunk, cells_MX: Tensor) -> None:
        """Adds the gradients of the open cells of a chunk, where those of closed ones are 0."""
        one = chunk.owner
        for part, of_part_MX in zip(one.parts, one.split(cells_MX), strict=True):
            gate = "rows" if one.queries_R is not None else _gate_of(part)
            if gate not in self.of:
                continue
            keys_MX = part.keys(chunk.queries_M1)
            # The cells of diagonals that rows or columns open as well are 0 here already.
            if gate != "diagonals" or len(self.selection.edges_E):
                of_part_MX = of_part_MX * self._alone(chunk, gate, keys_MX, part)
            self._add(gate, of_part_MX, chunk, keys_MX)

    def add_closed(
        self,
        chunk: Chunk,
        cells_MX: Tensor,
        keys_1X: Tensor,
        gates: tuple[str, ...],
        scale: float,
        besides: tuple[Tensor | None, ...] = (),
    ) -> None:
        """Adds the gradients of the closed cells of a sample, of which ``scale`` are as many.

        Args:
            besides: queries whose closed cells have been added already.
        """

        def closed() -> Tensor:
            closed_MX = ~self.selection.open_cells(chunk.queries_M1, keys_1X)
            for queries_R in besides:
                assert queries_R is not None
                closed_MX &= ~torch.isin(chunk.queries_M1, queries_R)
            return closed_MX

        cells_MX = cells_MX * chunk.once("closed", closed)
        for gate in gates:
            if gate in self.of:
                self._add(gate, cells_MX * scale, chunk, keys_1X)

    def _alone(self, chunk: Chunk, gate: str, keys_MX: Tensor, part: Part | None = None) -> Tensor:
        """Where a gate decides a cell of the chunk alone."""

        def alone() -> Tensor:
            alone_MX = self.selection.closed_by_others(chunk.queries_M1, keys_MX, besides=gate)
            return alone_MX & self.selection.in_reach(chunk.queries_M1, keys_MX)

        return chunk.once((gate, part), alone)

    def _add(self, gate: str, cells_MX: Tensor, chunk: Chunk, keys_MX: Tensor) -> None:
        target, queries_M1 = self.of[gate], chunk.queries_M1
        if gate == "rows":
            place, cells_MX = queries_M1.squeeze(-1), cells_MX.sum(1)
        elif gate == "columns":
            place = keys_MX
            if len(keys_MX) == 1:
                cells_MX = cells_MX.sum(0)
        else:
            place = (queries_M1 - keys_MX).abs()
            cells_MX = cells_MX.masked_fill(place >= len(target), 0.0)
        place = place.clamp(0, len(target) - 1)
        target.index_add_(0, place.flatten(), cells_MX.flatten().to(target.dtype))


def _gate_of(part: Part) -> str:
    return "columns" if isinstance(part, Columns) else "diagonals"


def sampled_tokens(num_tokens: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Up to ``SAMPLED_TOKENS`` different positions, all equally likely, (S,)."""
    order = torch.rand(num_tokens, generator=generator, device=device).argsort()
    return order[:SAMPLED_TOKENS]
