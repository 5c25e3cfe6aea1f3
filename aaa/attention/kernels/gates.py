"""The kernels of the gates' gradients.

Both take parts of a walk along the third axis of their grid; what each finds is its own part of a
result (parts, B, H, ...).
"""

from __future__ import annotations

import triton
import triton.language as tl

from aaa.attention import dense
from aaa.attention.kernels.tiles import (
    crossing,
    diagonals_of,
    dropout_factor,
    is_open,
    list_of,
    listed_tokens,
    load_tile,
    on_diagonals,
    seed_of,
    share_of,
    text_and_head,
)

MAX_CLOSED_SCORE = tl.constexpr(dense.MAX_CLOSED_SCORE)


@triton.jit
def axis_gradient_kernel(
    query, key, value, gradient, highests, log_totals, deltas, of_gates, sample, sample_counts,
    gates, lists, counts, diagonals, spans, seeds,
    num_heads, list_heads, diagonal_texts, diagonal_heads, num_tokens, num_diagonals, window,
    sample_size, scaling, dropout,
    AXIS: tl.constexpr, SAMPLED: tl.constexpr,
    WINDOWED: tl.constexpr, NARROW: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of the gates of rows (AXIS 0) or of columns (1).

    The sum over the cells that a gate alone decides, those that neither the other axis nor a
    diagonal opens: of open gates with all tokens, of closed ones (SAMPLED) with those of a sample.
    The own axis is that of the gates, in tiles of BLOCK_Q, whichever it is.
    """
    bh, b, h, place = text_and_head(num_heads, num_tokens, D)
    stride = num_heads * D
    own_gates, own_list, num_open = list_of(
        AXIS, gates, lists, counts, b, h, num_heads, list_heads, num_tokens
    )
    other_gates, _, _ = list_of(
        1 - AXIS, gates, lists, counts, b, h, num_heads, list_heads, num_tokens
    )
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    first = tl.program_id(0) * BLOCK_Q
    factor = 1.0
    if SAMPLED:
        own = first + tl.arange(0, BLOCK_Q)
        computed = (own >= start) & (own < end)
        computed = computed & (is_open(own_gates, own, computed) == 0)
        size = tl.load(sample_counts + b)
        factor = (end - start).to(tl.float32) / tl.maximum(size, 1)
        start, end = tl.full([], 0, tl.int32), size
    else:
        own, computed = listed_tokens(own_list, first, num_open, BLOCK_Q)
    if tl.max(computed.to(tl.int32)) == 0:
        return
    diagonals, bits = diagonals_of(
        diagonals, b, h, diagonal_texts, diagonal_heads, num_diagonals, NARROW
    )
    seed = seed_of(seeds, bh, DROPOUT)
    query += place
    key += place
    value += place
    gradient += place
    at = bh * num_tokens
    # As (own, other), whichever of them are the queries.
    if AXIS == 0:
        left = load_tile(query, own, computed, stride, D, BLOCK_D)
        left_value = load_tile(gradient, own, computed, stride, D, BLOCK_D)
        highest = tl.load(highests + at + own, mask=computed, other=0.0)[:, None]
        log_total = tl.load(log_totals + at + own, mask=computed, other=float("inf"))[:, None]
        delta = tl.load(deltas + at + own, mask=computed, other=0.0)[:, None]
    else:
        left = load_tile(key, own, computed, stride, D, BLOCK_D)
        left_value = load_tile(value, own, computed, stride, D, BLOCK_D)
    result = tl.zeros([BLOCK_Q], tl.float32)
    start, end = share_of(start, end, tl.program_id(2), tl.num_programs(2), BLOCK_K)
    for slot in range(start, end, BLOCK_K):
        if SAMPLED:
            other, valid = listed_tokens(sample + b * sample_size, slot, end, BLOCK_K)
        else:
            other = slot + tl.arange(0, BLOCK_K)
            valid = other < end
        alone = valid & (is_open(other_gates, other, valid) == 0)
        undecided = crossing(own, other, computed, alone, window, WINDOWED)
        undecided = undecided & (
            on_diagonals(diagonals, bits, num_diagonals, own, other, NARROW) == 0
        )
        if AXIS == 0:
            right = load_tile(key, other, valid, stride, D, BLOCK_D)
            right_value = load_tile(value, other, valid, stride, D, BLOCK_D)
        else:
            right = load_tile(query, other, valid, stride, D, BLOCK_D)
            right_value = load_tile(gradient, other, valid, stride, D, BLOCK_D)
            highest = tl.load(highests + at + other, mask=valid, other=0.0)[None, :]
            log_total = tl.load(log_totals + at + other, mask=valid, other=float("inf"))[None, :]
            delta = tl.load(deltas + at + other, mask=valid, other=0.0)[None, :]
        scores = tl.dot(left, tl.trans(right), input_precision=PRECISION) * scaling
        of_weights = tl.dot(left_value, tl.trans(right_value), input_precision=PRECISION)
        if DROPOUT:
            if AXIS == 0:
                of_weights *= dropout_factor(seed, dropout, num_tokens, own, other)
            else:
                of_weights *= tl.trans(dropout_factor(seed, dropout, num_tokens, other, own))
        bounded = tl.minimum(scores - highest, MAX_CLOSED_SCORE)
        weights = tl.exp(bounded + (highest - log_total))
        result += tl.sum(tl.where(undecided, weights * (of_weights - delta), 0.0), 1)
    part = (tl.program_id(2) * tl.num_programs(1) + bh) * num_tokens
    tl.store(of_gates + part + own, result * factor, mask=computed)


@triton.jit
def diagonal_gradient_kernel(
    query, key, value, gradient, highests, log_totals, deltas, of_gates,
    gates, lists, counts, spans, seeds,
    num_heads, list_heads, num_tokens, num_diagonals, window, scaling, dropout,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of one distance's gate, open or closed: both of its diagonals, cell by cell."""
    bh, b, h, place = text_and_head(num_heads, num_tokens, D)
    stride = num_heads * D
    distance = tl.program_id(0)
    if distance > window:
        return
    rows, _, _ = list_of(0, gates, lists, counts, b, h, num_heads, list_heads, num_tokens)
    columns, _, _ = list_of(1, gates, lists, counts, b, h, num_heads, list_heads, num_tokens)
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    seed = seed_of(seeds, bh, DROPOUT)
    query += place
    key += place
    value += place
    gradient += place
    at = bh * num_tokens
    result = tl.zeros([BLOCK], tl.float32)
    first, last = share_of(start, end, tl.program_id(2), tl.num_programs(2), BLOCK)
    for i0 in range(first, last, BLOCK):
        i = i0 + tl.arange(0, BLOCK)
        real = i < last
        queries = load_tile(query, i, real, stride, D, BLOCK_D).to(tl.float32)
        gradients = load_tile(gradient, i, real, stride, D, BLOCK_D).to(tl.float32)
        highest = tl.load(highests + at + i, mask=real, other=0.0)
        log_total = tl.load(log_totals + at + i, mask=real, other=float("inf"))
        delta = tl.load(deltas + at + i, mask=real, other=0.0)
        real = real & (is_open(rows, i, real) == 0)
        for side in tl.static_range(2):
            j = i + distance if side == 0 else i - distance
            undecided = real & (j >= start) & (j < end)
            undecided = undecided & (is_open(columns, j, undecided) == 0)
            if side == 1:
                undecided = undecided & (j != i)  # the main diagonal has one side
            keys = load_tile(key, j, undecided, stride, D, BLOCK_D).to(tl.float32)
            values = load_tile(value, j, undecided, stride, D, BLOCK_D).to(tl.float32)
            scores = tl.sum(queries * keys, 1) * scaling
            of_weights = tl.sum(gradients * values, 1)
            if DROPOUT:
                cell = i.to(tl.int64) * num_tokens + j
                of_weights *= tl.where(tl.rand(seed, cell) >= dropout, 1 / (1 - dropout), 0.0)
            bounded = tl.minimum(scores - highest, MAX_CLOSED_SCORE)
            weights = tl.exp(bounded + (highest - log_total))
            result += tl.where(undecided, weights * (of_weights - delta), 0.0)
    part = (tl.program_id(2) * tl.num_programs(1) + bh) * num_diagonals
    tl.store(of_gates + part + distance, tl.sum(result))
