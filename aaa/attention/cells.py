"""The cells of a chunk: their scores and probabilities, and sums over them, part by part.

Shape suffixes: H heads, N tokens of a text, D features, M queries of a chunk, X cells of a query.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from aaa.attention.dense import MAX_CLOSED_SCORE, closed_bias
from aaa.attention.passes import Chunk, Pass

Taken = dict[Hashable, Tensor]  # keys or values, or their gradients, by their parts' layouts


def work_dtype(tensor: Tensor) -> torch.dtype:
    """Small matrix products are slower in 16 bits than in 32 on CPUs, and less exact."""
    return torch.promote_types(tensor.dtype, torch.float32) if tensor.is_cpu else tensor.dtype


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """At least float32."""
    return torch.promote_types(dtype, torch.float32)


def take(one: Pass, tokens_HND: Tensor, dtype: torch.dtype) -> Taken:
    """Keys or values as the parts of a pass read them."""
    return {layout: part.take(tokens_HND).to(dtype) for layout, part in one.layouts.items()}


def products(chunk: Chunk, x_HMD: Tensor, taken: Taken) -> Tensor:
    """``cells_ij = x_i . y_j`` over the cells of a chunk, (H, M, X)."""
    one = chunk.owner
    cells_HMX = x_HMD.new_empty(*x_HMD.shape[:2], one.width)
    for part, of_part_HMX in zip(one.parts, one.split(cells_HMX), strict=True):
        part.products(x_HMD, chunk.first, taken[part.layout], of_part_HMX)
    return cells_HMX.to(softmax_dtype(cells_HMX.dtype))


def combine(chunk: Chunk, cells_HMX: Tensor, taken: Taken) -> Tensor:
    """``x_i = sum_j cells_ij y_j``, (H, M, D)."""
    one = chunk.owner
    size = taken[one.parts[0].layout].shape[-1]
    x_HMD = cells_HMX.new_zeros(*cells_HMX.shape[:2], size)
    for part, of_part_HMX in zip(one.parts, one.split(cells_HMX), strict=True):
        part.combine(of_part_HMX, chunk.first, taken[part.layout], x_HMD)
    return x_HMD


def spread(chunk: Chunk, cells_HMX: Tensor, x_HMD: Tensor, gradients: Taken) -> None:
    """``y_j += sum_i cells_ij x_i``."""
    one = chunk.owner
    for part, of_part_HMX in zip(one.parts, one.split(cells_HMX), strict=True):
        part.spread(of_part_HMX, x_HMD, chunk.first, gradients[part.layout])


def scores(chunk: Chunk, query_HMD: Tensor, keys: Taken) -> Tensor:
    """Scores, -inf where a cell is none or is counted elsewhere."""
    scores_HMX = products(chunk, query_HMD, keys)
    one = chunk.owner
    for part, of_part_HMX in zip(one.parts, one.split(scores_HMX), strict=True):
        bias_MX = chunk.bias(part)
        if bias_MX is not None:
            of_part_HMX += bias_MX
    return scores_HMX


def softmax(chunk: Chunk, scores_HMX: Tensor) -> Tensor:
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


def weights(chunk: Chunk, scores_HMX: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of all cells and probabilities, the weights of the open ones, as in ``dense``."""
    cells_MX = chunk.open_cells()
    highest_HM1 = highest(scores_HMX + closed_bias(cells_MX))
    weights_HMX = (scores_HMX - highest_HM1).clamp_max_(MAX_CLOSED_SCORE).exp_()
    probabilities_HMX = weights_HMX * cells_MX
    sums_HM1 = probabilities_HMX.sum(-1, keepdim=True)
    sums_HM1.masked_fill_(sums_HM1 == 0, torch.inf)  # an empty row has no gradient either
    return weights_HMX.div_(sums_HM1), probabilities_HMX.div_(sums_HM1)


def highest(scores_HMX: Tensor) -> Tensor:
    """Of each row, finite also where all of it is -inf."""
    return scores_HMX.amax(-1, keepdim=True).clamp_min_(torch.finfo(scores_HMX.dtype).min)
