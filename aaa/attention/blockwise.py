"""Attention of a text's passes, chunk by chunk, forward and backward.

Everything is computed in float32 on CPUs (float64 for float64 inputs); elsewhere products are in
the inputs' dtype and the softmax in float32.

Shape suffixes: H heads, N tokens of a text, D features, M queries of a chunk, X cells of a query,
S sampled tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.attention.dense import MAX_CLOSED_SCORE, closed_bias
from aaa.attention.gates import HeadGateGradients
from aaa.attention.parts import Columns
from aaa.attention.passes import Chunk, Pass


class QueryKeyValue(NamedTuple):
    """One text's tokens in some heads, or what belongs to them; each (H, N, D)."""

    query: Tensor
    key: Tensor
    value: Tensor

    def of_heads(self, heads: slice) -> QueryKeyValue:
        """Those of some of the heads, as views."""
        return QueryKeyValue(self.query[heads], self.key[heads], self.value[heads])


class Dropout:
    """Multipliers of probabilities, 0 or ``1 / (1 - share)``: the same sequence for a seed."""

    def __init__(self, share: float, seed: Tensor, device: torch.device) -> None:
        self.share = share
        self.generator = torch.Generator(device).manual_seed(int(seed)) if share else None

    def draw(self, probabilities: Tensor) -> Tensor | None:
        """For each probability one, or None where there is no dropout."""
        if self.generator is None:
            return None
        kept = torch.empty_like(probabilities)
        kept.bernoulli_(1 - self.share, generator=self.generator)
        return kept.div_(1 - self.share) if self.share < 1 else kept


def work_dtype(tensor: Tensor) -> torch.dtype:
    """Small matrix products are slower in 16 bits than in 32 on CPUs, and less exact."""
    return torch.promote_types(tensor.dtype, torch.float32) if tensor.is_cpu else tensor.dtype


def forward(
    one: Pass, text: QueryKeyValue, output_HND: Tensor, scaling: float, dropout: Dropout
) -> None:
    """Writes the output of a pass's queries."""
    if one.meets_all and not dropout.share and text.query.shape[-1] == text.value.shape[-1]:
        _forward_fused(one, text, output_HND, scaling)
        return
    dtype = work_dtype(text.query)
    chunks = list(one.chunks())
    for heads in one.head_groups(len(output_HND)):
        query_HND, key_HND, value_HND = text.of_heads(heads)
        keys = [part.take(key_HND).to(dtype) for part in one.parts]
        values = [part.take(value_HND).to(dtype) for part in one.parts]
        for chunk in chunks:
            query_HMD = chunk.read(query_HND, dtype, scaling)
            probabilities_HMX = _softmax(chunk, _scores(chunk, query_HMD, keys))
            kept_HMX = dropout.draw(probabilities_HMX)
            if kept_HMX is not None:
                probabilities_HMX *= kept_HMX
            output_HMD = _combined(chunk, probabilities_HMX.to(dtype), values)
            chunk.write(output_HMD, output_HND[heads])


def _forward_fused(one: Pass, text: QueryKeyValue, output_HND: Tensor, scaling: float) -> None:
    """Of whole rows, by PyTorch's attention, which is fastest where nothing is closed."""
    rows = QueryKeyValue(text.query[:, one.queries_R], text.key, text.value)
    query, key, value = (x.to(work_dtype(x)).unsqueeze(0) for x in rows)
    output_HRD = F.scaled_dot_product_attention(query, key, value, scale=scaling).squeeze(0)
    output_HND[:, one.queries_R] = output_HRD.to(output_HND.dtype)


class Backward:
    """Gradients of one text in heads that share a selection, gathered over its passes.

    Run for every pass in the order of the forward ones, it adds to the gradients that it is given.

    Args:
        inputs, gradients: of queries, keys and values; the gradients in ``work_dtype``.
        output_HND, of_output_HND: the forward passes' result, and its gradient.
        sampled_S: the tokens from whose cells the gradients of closed gates are estimated.
    """

    def __init__(
        self,
        inputs: QueryKeyValue,
        gradients: QueryKeyValue,
        output_HND: Tensor,
        of_output_HND: Tensor,
        of_gates: HeadGateGradients,
        sampled_S: Tensor,
        scaling: float,
        dropout: Dropout,
    ) -> None:
        self.inputs, self.gradients = inputs, gradients
        self.output_HND, self.of_output_HND = output_HND, of_output_HND
        self.of_gates, self.sampled_S = of_gates, sampled_S
        self.scaling, self.dropout = scaling, dropout
        self.dtype = gradients.query.dtype

    def run(self, one: Pass) -> None:
        """Adds what the cells of one pass contribute."""
        chunks = list(one.chunks())
        for heads in one.head_groups(len(self.output_HND)):
            _, key_HND, value_HND = self.inputs.of_heads(heads)
            keys = [part.take(key_HND).to(self.dtype) for part in one.parts]
            values = [part.take(value_HND).to(self.dtype) for part in one.parts]
            of_keys, of_values = ([torch.zeros_like(x) for x in taken] for taken in (keys, values))
            for chunk in chunks:
                self._run_chunk(chunk, heads, keys, values, of_keys, of_values)
            _, of_key_HND, of_value_HND = self.gradients.of_heads(heads)
            for part, of_key, of_value in zip(one.parts, of_keys, of_values, strict=True):
                part.give(of_key, of_key_HND)
                part.give(of_value, of_value_HND)

    def estimate_closed_gates(self, passes: list[Pass]) -> None:
        """Adds what sampled queries say of columns and diagonals that are closed."""
        if not passes[0].leaves_cells_out or not self.of_gates.any_of("columns", "diagonals"):
            return
        selection = passes[0].selection
        whole = Columns(None, selection.num_tokens, selection.device)
        sample = Pass(selection, (whole,), self.sampled_S, masked=True, never_empty=False)
        computed = tuple(other.queries_R for other in passes if other.masked)
        chunks = list(sample.chunks())
        for heads in sample.head_groups(len(self.output_HND)):
            _, key_HND, value_HND = self.inputs.of_heads(heads)
            keys, values = [key_HND.to(self.dtype)], [value_HND.to(self.dtype)]
            for chunk in chunks:
                query_HMD, of_output_HMD, mean_HM1 = self._read(chunk, heads)
                scores_HMX = _scores(chunk, query_HMD, keys)
                weights_HMX, _ = _weights(chunk, scores_HMX)
                of_cells_HMX = _products(chunk, of_output_HMD, values) - mean_HM1
                self.of_gates.add_closed(
                    chunk, (weights_HMX * of_cells_HMX).sum(0), whole.keys(chunk.queries_M1),
                    ("columns", "diagonals"), self._sample_scale, besides=computed,
                )  # fmt: skip

    def _run_chunk(
        self,
        chunk: Chunk,
        heads: slice,
        keys: list[Tensor],
        values: list[Tensor],
        of_keys: list[Tensor],
        of_values: list[Tensor],
    ) -> None:
        query_HMD, of_output_HMD, mean_HM1 = self._read(chunk, heads)
        scores_HMX = _scores(chunk, query_HMD, keys)
        weights_HMX = None
        if chunk.owner.masked and self.of_gates:
            weights_HMX, probabilities_HMX = _weights(chunk, scores_HMX)
        else:
            probabilities_HMX = _softmax(chunk, scores_HMX)
        of_cells_HMX = _products(chunk, of_output_HMD, values)
        kept_HMX = self.dropout.draw(probabilities_HMX)
        if kept_HMX is None:
            _spread(chunk, probabilities_HMX.to(self.dtype), of_output_HMD, of_values)
        else:
            of_cells_HMX *= kept_HMX
            kept_HMX *= probabilities_HMX
            _spread(chunk, kept_HMX.to(self.dtype), of_output_HMD, of_values)
        of_cells_HMX -= mean_HM1
        if self.of_gates and chunk.owner.leaves_cells_out:
            self._estimate_closed_rows(
                chunk, heads, _highest(scores_HMX), probabilities_HMX.amax(-1, keepdim=True),
                query_HMD, of_output_HMD, mean_HM1,
            )  # fmt: skip
        if weights_HMX is not None:
            self.of_gates.add_all(chunk, (weights_HMX.mul_(of_cells_HMX)).sum(0))
        of_scores_HMX = of_cells_HMX.mul_(probabilities_HMX).to(self.dtype)
        if weights_HMX is None and self.of_gates:
            self.of_gates.add_open(chunk, of_scores_HMX.sum(0))
        _spread(chunk, of_scores_HMX, query_HMD, of_keys)
        of_query_HMD = _combined(chunk, of_scores_HMX, keys).mul_(self.scaling)
        chunk.add(of_query_HMD, self.gradients.query[heads])

    def _read(self, chunk: Chunk, heads: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, the gradient of their outputs, and its mean under the probabilities."""
        query_HMD = chunk.read(self.inputs.query[heads], self.dtype, self.scaling)
        of_output_HMD = chunk.read(self.of_output_HND[heads], self.dtype)
        own_M1 = chunk.own_M1()
        if own_M1 is not None:
            of_output_HMD *= own_M1
        output_HMD = chunk.read(self.output_HND[heads], _softmax_dtype(self.dtype))
        return query_HMD, of_output_HMD, output_HMD.mul_(of_output_HMD).sum(-1, keepdim=True)

    def _estimate_closed_rows(
        self,
        chunk: Chunk,
        heads: slice,
        highest_HM1: Tensor,
        largest_HM1: Tensor,
        query_HMD: Tensor,
        of_output_HMD: Tensor,
        mean_HM1: Tensor,
    ) -> None:
        """Adds what sampled keys say of rows that are closed.

        Args:
            highest_HM1, largest_HM1: the highest score of each query and its probability, which
                is 1 / sum of exp(score - highest score).
        """
        if not self.of_gates.any_of("rows"):
            return
        _, key_HND, value_HND = self.inputs.of_heads(heads)
        keys_HSD, values_HSD = (x[:, self.sampled_S].to(self.dtype) for x in (key_HND, value_HND))
        scores_HMS = (query_HMD @ keys_HSD.mT).to(highest_HM1.dtype) - highest_HM1
        weights_HMS = scores_HMS.clamp_max_(MAX_CLOSED_SCORE).exp_().mul_(largest_HM1)
        of_cells_HMS = (of_output_HMD @ values_HSD.mT) - mean_HM1
        self.of_gates.add_closed(
            chunk, weights_HMS.mul_(of_cells_HMS).sum(0), self.sampled_S.unsqueeze(0),
            ("rows",), self._sample_scale,
        )  # fmt: skip

    @property
    def _sample_scale(self) -> float:
        return self.output_HND.shape[1] / len(self.sampled_S)


def _softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _products(chunk: Chunk, x_HMD: Tensor, taken: list[Tensor]) -> Tensor:
    one = chunk.owner
    cells_HMX = x_HMD.new_empty(*x_HMD.shape[:2], one.width)
    for part, keys, of_part_HMX in zip(one.parts, taken, one.split(cells_HMX), strict=True):
        part.products(x_HMD, chunk.first, keys, of_part_HMX)
    return cells_HMX.to(_softmax_dtype(cells_HMX.dtype))


def _combined(chunk: Chunk, cells_HMX: Tensor, taken: list[Tensor]) -> Tensor:
    one = chunk.owner
    x_HMD = cells_HMX.new_zeros(*cells_HMX.shape[:2], taken[0].shape[-1])
    for part, values, of_part_HMX in zip(one.parts, taken, one.split(cells_HMX), strict=True):
        part.combine(of_part_HMX, chunk.first, values, x_HMD)
    return x_HMD


def _spread(chunk: Chunk, cells_HMX: Tensor, x_HMD: Tensor, gradients: list[Tensor]) -> None:
    one = chunk.owner
    parts = zip(one.parts, gradients, one.split(cells_HMX), strict=True)
    for part, gradient, of_part_HMX in parts:
        part.spread(of_part_HMX, x_HMD, chunk.first, gradient)


def _scores(chunk: Chunk, query_HMD: Tensor, keys: list[Tensor]) -> Tensor:
    """Scores, -inf where a cell is none or is counted elsewhere."""
    scores_HMX = _products(chunk, query_HMD, keys)
    one = chunk.owner
    for part, of_part_HMX in zip(one.parts, one.split(scores_HMX), strict=True):
        bias_MX = chunk.bias(part)
        if bias_MX is not None:
            of_part_HMX += bias_MX
    return scores_HMX


def _softmax(chunk: Chunk, scores_HMX: Tensor) -> Tensor:
    """Probabilities of the open cells; rows without any are 0."""
    if chunk.owner.masked:
        scores_HMX = scores_HMX + closed_bias(chunk.open_cells())
    probabilities_HMX = scores_HMX.softmax(-1)
    if not chunk.owner.never_empty:
        empty_HM1 = scores_HMX.amax(-1, keepdim=True) == -torch.inf
        if empty_HM1.any():  # the filling takes far longer than to ask
            probabilities_HMX.masked_fill_(empty_HM1, 0)
    probabilities_HMX[:, chunk.real :] = 0  # the queries of padding may have no key at all
    return probabilities_HMX


def _weights(chunk: Chunk, scores_HMX: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of all cells and probabilities, the weights of the open ones, as in ``dense``."""
    cells_MX = chunk.open_cells()
    highest_HM1 = _highest(scores_HMX + closed_bias(cells_MX))
    weights_HMX = (scores_HMX - highest_HM1).clamp_max_(MAX_CLOSED_SCORE).exp_()
    probabilities_HMX = weights_HMX * cells_MX
    sums_HM1 = probabilities_HMX.sum(-1, keepdim=True)
    sums_HM1.masked_fill_(sums_HM1 == 0, torch.inf)  # an empty row has no gradient either
    return weights_HMX.div_(sums_HM1), probabilities_HMX.div_(sums_HM1)


def _highest(scores_HMX: Tensor) -> Tensor:
    """Of each row, finite also where all of it is -inf."""
    return scores_HMX.amax(-1, keepdim=True).clamp_min_(torch.finfo(scores_HMX.dtype).min)
