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

from aaa.attention import cells
from aaa.attention.cells import Taken, work_dtype
from aaa.attention.dense import MAX_CLOSED_SCORE
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
    """Multipliers of probabilities, 0 or ``1 / (1 - share)``: the same sequence for a seed.

    Of 16 random bits a cell, drawn for four cells at a time: ``bernoulli_`` takes three times as
    long on a CPU, a third of a window's attention in training. The share is rounded to so many
    bits, with its factor.
    """

    LEVELS = 2**16

    def __init__(self, share: float, seed: Tensor, device: torch.device) -> None:
        self.share = share
        self.generator = torch.Generator(device).manual_seed(int(seed)) if share else None
        self.dropped = round(share * self.LEVELS)

    def draw(self, probabilities: Tensor) -> Tensor | None:
        """For each probability one, or None where there is no dropout."""
        if self.generator is None:
            return None
        if self.dropped == self.LEVELS:
            return torch.zeros_like(probabilities)
        count, device = probabilities.numel(), probabilities.device
        bits = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
        bits.random_(-(2**63), None, generator=self.generator)
        levels = bits.view(torch.int16)[:count].view(probabilities.shape)
        kept = (levels >= self.dropped - self.LEVELS // 2).to(probabilities.dtype)
        return kept.mul_(self.LEVELS / (self.LEVELS - self.dropped))


def forward(
    one: Pass, text: QueryKeyValue, output_HND: Tensor, scaling: float, dropout: Dropout
) -> None:
    """Writes the output of a pass's queries."""
    if one.meets_all and not dropout.share:
        _forward_fused(one, text, output_HND, scaling)
        return
    dtype = work_dtype(text.query)
    chunks = list(one.chunks())
    for heads in one.head_groups(len(output_HND)):
        query_HND, key_HND, value_HND = text.of_heads(heads)
        keys, values = (cells.take(one, tokens_HND, dtype) for tokens_HND in (key_HND, value_HND))
        for chunk in chunks:
            query_HMD = chunk.read(query_HND, dtype, scaling)
            probabilities_HMX = cells.softmax(chunk, cells.scores(chunk, query_HMD, keys))
            kept_HMX = dropout.draw(probabilities_HMX)
            if kept_HMX is not None:
                probabilities_HMX *= kept_HMX
            output_HMD = cells.combine(chunk, probabilities_HMX.to(dtype), values)
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
            keys, values = (cells.take(one, x_HND, self.dtype) for x_HND in (key_HND, value_HND))
            of_keys, of_values = (
                {layout: torch.zeros_like(x) for layout, x in taken.items()}
                for taken in (keys, values)
            )
            for chunk in chunks:
                self._run_chunk(chunk, heads, keys, values, of_keys, of_values)
            _, of_key_HND, of_value_HND = self.gradients.of_heads(heads)
            for layout, part in one.layouts.items():
                part.give(of_keys[layout], of_key_HND)
                part.give(of_values[layout], of_value_HND)

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
            keys, values = (
                cells.take(sample, x_HND, self.dtype) for x_HND in (key_HND, value_HND)
            )
            for chunk in chunks:
                query_HMD, of_output_HMD, mean_HM1 = self._read(chunk, heads)
                scores_HMX = cells.scores(chunk, query_HMD, keys)
                weights_HMX, _ = cells.weights(chunk, scores_HMX)
                of_cells_HMX = cells.products(chunk, of_output_HMD, values) - mean_HM1
                self.of_gates.add_closed(
                    chunk, (weights_HMX * of_cells_HMX).sum(0), whole.keys(chunk.queries_M1),
                    ("columns", "diagonals"), self._sample_scale, besides=computed,
                )  # fmt: skip

    def _run_chunk(
        self,
        chunk: Chunk,
        heads: slice,
        keys: Taken,
        values: Taken,
        of_keys: Taken,
        of_values: Taken,
    ) -> None:
        query_HMD, of_output_HMD, mean_HM1 = self._read(chunk, heads)
        scores_HMX = cells.scores(chunk, query_HMD, keys)
        weights_HMX = None
        if chunk.owner.masked and self.of_gates:
            weights_HMX, probabilities_HMX = cells.weights(chunk, scores_HMX)
        else:
            probabilities_HMX = cells.softmax(chunk, scores_HMX)
        of_cells_HMX = cells.products(chunk, of_output_HMD, values)
        kept_HMX = self.dropout.draw(probabilities_HMX)
        if kept_HMX is None:
            cells.spread(chunk, probabilities_HMX.to(self.dtype), of_output_HMD, of_values)
        else:
            of_cells_HMX *= kept_HMX
            kept_HMX *= probabilities_HMX
            cells.spread(chunk, kept_HMX.to(self.dtype), of_output_HMD, of_values)
        of_cells_HMX -= mean_HM1
        if self.of_gates and chunk.owner.leaves_cells_out:
            self._estimate_closed_rows(
                chunk, heads, cells.highest(scores_HMX), probabilities_HMX.amax(-1, keepdim=True),
                query_HMD, of_output_HMD, mean_HM1,
            )  # fmt: skip
        if weights_HMX is not None:
            self.of_gates.add_all(chunk, (weights_HMX.mul_(of_cells_HMX)).sum(0))
        of_scores_HMX = of_cells_HMX.mul_(probabilities_HMX).to(self.dtype)
        if weights_HMX is None and self.of_gates:
            self.of_gates.add_open(chunk, of_scores_HMX.sum(0))
        cells.spread(chunk, of_scores_HMX, query_HMD, of_keys)
        of_query_HMD = cells.combine(chunk, of_scores_HMX, keys).mul_(self.scaling)
        chunk.add(of_query_HMD, self.gradients.query[heads])

    def _read(self, chunk: Chunk, heads: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, the gradient of their outputs, and its mean under the probabilities."""
        query_HMD = chunk.read(self.inputs.query[heads], self.dtype, self.scaling)
        of_output_HMD = chunk.read(self.of_output_HND[heads], self.dtype)
        own_M1 = chunk.own_M1()
        if own_M1 is not None:
            of_output_HMD *= own_M1
        output_HMD = chunk.read(self.output_HND[heads], cells.softmax_dtype(self.dtype))
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
