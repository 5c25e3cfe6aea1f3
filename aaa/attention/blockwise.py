"""Attention of a text's passes, chunk by chunk, forward and backward.

Everything is computed in float32 on CPUs (float64 for float64 inputs); elsewhere products are in
the inputs' dtype and the softmax in float32.

Shape suffixes: H heads, N tokens of a text, D features, M queries of a chunk, X cells of a query,
S sampled tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from aaa.attention.dense import MAX_CLOSED_SCORE
from aaa.attention.gates import HeadGateGradients
from aaa.attention.parts import Columns
from aaa.attention.passes import Chunk, Pass
from aaa.attention.selection import TextHeads


class Dropout:
    """Multipliers of probabilities, 0 or ``1 / (1 - share)``: the same sequence for a seed."""

    def __init__(self, share: float, seed: Tensor, device: torch.device) -> None:
        self.share = share
        self.generator = torch.Generator(device).manual_seed(int(seed)) if share else None

    def draw(self, probabilities: Tensor) -> Tensor | None:
        if self.generator is None:
            return None
        kept = torch.empty_like(probabilities)
        kept.bernoulli_(1 - self.share, generator=self.generator)
        return kept.div_(1 - self.share) if self.share < 1 else kept


def few_heads_at_a_time(
    heads: TextHeads, passes: list[Pass], num_heads: int
) -> Iterator[TextHeads]:
    """The heads in groups, whose chunks stay within a cache."""
    first, end, _ = heads.heads.indices(num_heads)
    size = min(one.heads_at_once() for one in passes)
    for start in range(first, end, size):
        yield replace(heads, heads=slice(start, min(start + size, end)))


def forward(
    one: Pass,
    query_HND: Tensor,
    key_HND: Tensor,
    value_HND: Tensor,
    output_HND: Tensor,
    scaling: float,
    dropout: Dropout,
) -> None:
    """Writes the output of a pass's queries."""
    dtype = _work_dtype(query_HND)
    keys = [part.take(key_HND).to(dtype) for part in one.parts]
    values = [part.take(value_HND).to(dtype) for part in one.parts]
    for chunk in one.chunks():
        query_HMD = chunk.read(query_HND, dtype).mul_(scaling)
        probabilities_HMX = _softmax(one, chunk, _scores(one, chunk, query_HMD, keys))
        kept_HMX = dropout.draw(probabilities_HMX)
        if kept_HMX is not None:
            probabilities_HMX = probabilities_HMX * kept_HMX
        chunk.write(_combined(one, chunk, probabilities_HMX.to(dtype), values), output_HND)


class Backward:
    """Gradients of one text's heads, gathered over its passes.

    After ``run`` for every pass, in the order of the forward ones, the gradients are in
    ``of_query_HND``, ``of_key_HND`` and ``of_value_HND``, and added to ``of_gates``.
    """

    def __init__(
        self,
        of_output_HND: Tensor,
        output_HND: Tensor,
        query_HND: Tensor,
        key_HND: Tensor,
        value_HND: Tensor,
        of_gates: HeadGateGradients,
        sampled_S: Tensor,
        scaling: float,
        dropout: Dropout,
    ) -> None:
        self.of_output_HND, self.output_HND = of_output_HND, output_HND
        self.query_HND, self.key_HND, self.value_HND = query_HND, key_HND, value_HND
        self.of_gates, self.sampled_S = of_gates, sampled_S
        self.scaling, self.dropout = scaling, dropout
        self.dtype = _work_dtype(query_HND)
        self.of_query_HND, self.of_key_HND, self.of_value_HND = (
            torch.zeros(x.shape, dtype=self.dtype, device=x.device)
            for x in (query_HND, key_HND, value_HND)
        )

    def run(self, one: Pass) -> None:
        """Adds what the cells of one pass contribute."""
        keys = [part.take(self.key_HND).to(self.dtype) for part in one.parts]
        values = [part.take(self.value_HND).to(self.dtype) for part in one.parts]
        of_keys, of_values = ([torch.zeros_like(x) for x in taken] for taken in (keys, values))
        for chunk in one.chunks():
            query_HMD, of_output_HMD, mean_HM1 = self._read(chunk)
            scores_HMX = _scores(one, chunk, query_HMD, keys)
            weights_HMX, probabilities_HMX = self._weights(one, chunk, scores_HMX)
            kept_HMX = self.dropout.draw(probabilities_HMX)
            of_cells_HMX = _products(one, chunk, of_output_HMD, values)
            dropped_HMX = probabilities_HMX
            if kept_HMX is not None:
                of_cells_HMX *= kept_HMX
                dropped_HMX = probabilities_HMX * kept_HMX
            _spread(one, chunk, dropped_HMX.to(self.dtype), of_output_HMD, of_values)
            of_cells_HMX -= mean_HM1
            of_scores_HMX = (probabilities_HMX * of_cells_HMX).to(self.dtype)
            _spread(one, chunk, of_scores_HMX, query_HMD, of_keys)
            of_query_HMD = _combined(one, chunk, of_scores_HMX, keys)
            chunk.add(of_query_HMD.mul_(self.scaling), self.of_query_HND)
            if self.of_gates:
                of_gates_HMX = of_scores_HMX if weights_HMX is None else weights_HMX * of_cells_HMX
                self._to_gates(one, chunk, of_gates_HMX)
                if not one.masked and one.queries_R is None:
                    self._to_closed_rows(chunk, scores_HMX, probabilities_HMX, query_HMD,
                                         of_output_HMD, mean_HM1)  # fmt: skip
        for part, of_key, of_value in zip(one.parts, of_keys, of_values, strict=True):
            part.give(of_key, self.of_key_HND)
            part.give(of_value, self.of_value_HND)

    def estimate_closed_gates(self, passes: list[Pass]) -> None:
        """Adds what sampled queries say of columns and diagonals that are closed."""
        main = passes[0]
        if not self.of_gates or main.masked or main.queries_R is not None:
            return  # every cell has been computed
        selection = main.selection
        whole = Columns(None, selection.num_tokens, selection.device)
        sample = Pass(selection, (whole,), self.sampled_S, masked=True, never_empty=False)
        keys, values = self.key_HND.to(self.dtype), self.value_HND.to(self.dtype)
        for chunk in sample.chunks():
            query_HMD, of_output_HMD, mean_HM1 = self._read(chunk)
            scores_HMX = _scores(sample, chunk, query_HMD, [keys])
            weights_HMX, _ = self._weights(sample, chunk, scores_HMX)
            assert weights_HMX is not None
            of_cells_HMX = _products(sample, chunk, of_output_HMD, [values]) - mean_HM1
            queries_M1 = chunk.queries_M1
            keys_MX = whole.keys(queries_M1)
            counted_MX = ~selection.open_cells(queries_M1, keys_MX)
            for other in passes[1:]:
                if other.masked:  # its queries' cells have been computed
                    assert other.queries_R is not None
                    counted_MX &= ~torch.isin(queries_M1, other.queries_R)
            self.of_gates.add(
                (weights_HMX * of_cells_HMX).sum(0) * counted_MX, queries_M1, keys_MX,
                gates=("columns", "diagonals"), scale=selection.num_tokens / len(self.sampled_S),
            )  # fmt: skip

    def _read(self, chunk: Chunk) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, the gradient of their outputs, and its mean under the probabilities."""
        query_HMD = chunk.read(self.query_HND, self.dtype).mul_(self.scaling)
        of_output_HMD = chunk.read(self.of_output_HND, self.dtype)
        overwritten_M1 = chunk.overwritten_M1()
        if overwritten_M1 is not None:
            of_output_HMD.masked_fill_(overwritten_M1, 0)
        output_HMD = chunk.read(self.output_HND, torch.promote_types(self.dtype, torch.float32))
        return query_HMD, of_output_HMD, (of_output_HMD * output_HMD).sum(-1, keepdim=True)

    def _weights(
        self, one: Pass, chunk: Chunk, scores_HMX: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Weights of all cells, where they are needed, and probabilities, that of open ones."""
        if not (one.masked and self.of_gates):
            return None, _softmax(one, chunk, scores_HMX)
        cells_MX = one.selection.open_cells(chunk.queries_M1, one.keys(chunk.queries_M1))
        highest_HM1 = _highest(scores_HMX.masked_fill(~cells_MX, -torch.inf))
        weights_HMX = (scores_HMX - highest_HM1).clamp_max_(MAX_CLOSED_SCORE).exp_()
        sums_HM1 = (weights_HMX * cells_MX).sum(-1, keepdim=True)
        weights_HMX /= sums_HM1.clamp_min_(torch.finfo(sums_HM1.dtype).tiny)
        return weights_HMX, weights_HMX * cells_MX

    def _to_gates(self, one: Pass, chunk: Chunk, of_cells_HMX: Tensor) -> None:
        queries_M1 = chunk.queries_M1
        of_cells_MX = of_cells_HMX.sum(0)
        if one.masked:
            self.of_gates.add(of_cells_MX, queries_M1, one.keys(queries_M1))
        elif one.queries_R is not None:
            self.of_gates.add(of_cells_MX, queries_M1, one.keys(queries_M1), gates=("rows",))
        else:
            for part, of_part_MX in zip(one.parts, one.split(of_cells_MX), strict=True):
                gates = ("columns",) if isinstance(part, Columns) else ("diagonals",)
                self.of_gates.add(of_part_MX, queries_M1, part.keys(queries_M1), gates=gates)

    def _to_closed_rows(
        self,
        chunk: Chunk,
        scores_HMX: Tensor,
        probabilities_HMX: Tensor,
        query_HMD: Tensor,
        of_output_HMD: Tensor,
        mean_HM1: Tensor,
    ) -> None:
        """Adds what sampled keys say of rows that are closed."""
        selection, keys_1S = chunk.owner.selection, self.sampled_S.unsqueeze(0)
        if "rows" not in self.of_gates.of:
            return
        keys_HSD, values_HSD = (
            x[:, self.sampled_S].to(self.dtype) for x in (self.key_HND, self.value_HND)
        )
        scores_HMS = (query_HMD @ keys_HSD.mT).to(scores_HMX.dtype) - _highest(scores_HMX)
        # The highest score has the probability 1 / sum of exp(score - highest score).
        weights_HMS = scores_HMS.clamp_max_(MAX_CLOSED_SCORE).exp_()
        weights_HMS *= probabilities_HMX.amax(-1, keepdim=True)
        of_cells_HMS = of_output_HMD @ values_HSD.mT - mean_HM1
        queries_M1 = chunk.queries_M1
        closed_MS = ~selection.open_cells(queries_M1, keys_1S)
        self.of_gates.add(
            (weights_HMS * of_cells_HMS).sum(0) * closed_MS, queries_M1, keys_1S,
            gates=("rows",), scale=selection.num_tokens / len(self.sampled_S),
        )  # fmt: skip


def _work_dtype(tensor: Tensor) -> torch.dtype:
    """Small matrix products are slower in 16 bits than in 32 on CPUs, and less exact."""
    return torch.promote_types(tensor.dtype, torch.float32) if tensor.is_cpu else tensor.dtype


def _products(one: Pass, chunk: Chunk, x_HMD: Tensor, taken: list[Tensor]) -> Tensor:
    cells_HMX = x_HMD.new_empty(*x_HMD.shape[:2], one.width)
    for part, keys, of_part_HMX in zip(one.parts, taken, one.split(cells_HMX), strict=True):
        part.products(x_HMD, chunk.first, keys, of_part_HMX)
    return cells_HMX.to(torch.promote_types(cells_HMX.dtype, torch.float32))


def _combined(one: Pass, chunk: Chunk, cells_HMX: Tensor, taken: list[Tensor]) -> Tensor:
    x_HMD = taken[0].new_zeros(*cells_HMX.shape[:2], taken[0].shape[-1])
    for part, values, of_part_HMX in zip(one.parts, taken, one.split(cells_HMX), strict=True):
        part.combine(of_part_HMX, chunk.first, values, x_HMD)
    return x_HMD


def _spread(
    one: Pass, chunk: Chunk, cells_HMX: Tensor, x_HMD: Tensor, gradients: list[Tensor]
) -> None:
    for part, gradient, of_part_HMX in zip(
        one.parts, gradients, one.split(cells_HMX), strict=True
    ):
        part.spread(of_part_HMX, x_HMD, chunk.first, gradient)


def _scores(one: Pass, chunk: Chunk, query_HMD: Tensor, keys: list[Tensor]) -> Tensor:
    """Scores, -inf where a cell is none or is counted elsewhere."""
    scores_HMX = _products(one, chunk, query_HMD, keys)
    first_part_HMX, *_ = parts = one.split(scores_HMX)
    for part, of_part_HMX in zip(one.parts, parts, strict=True):
        part.close(of_part_HMX, chunk.first)
    chunk.close_doubled(first_part_HMX)
    return scores_HMX


def _softmax(one: Pass, chunk: Chunk, scores_HMX: Tensor) -> Tensor:
    """Probabilities of the open cells; rows without any are 0."""
    if one.masked:
        cells_MX = one.selection.open_cells(chunk.queries_M1, one.keys(chunk.queries_M1))
        scores_HMX = scores_HMX.masked_fill(~cells_MX, -torch.inf)
    probabilities_HMX = scores_HMX.softmax(-1)
    if not one.never_empty:
        probabilities_HMX.masked_fill_(scores_HMX.amax(-1, keepdim=True) == -torch.inf, 0)
    probabilities_HMX[:, chunk.real :] = 0  # the queries of padding may have no key at all
    return probabilities_HMX


def _highest(scores_HMX: Tensor) -> Tensor:
    """Of each row, finite also where all of it is -inf."""
    return scores_HMX.amax(-1, keepdim=True).clamp_min_(torch.finfo(scores_HMX.dtype).min)
