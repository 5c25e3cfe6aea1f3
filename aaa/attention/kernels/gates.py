"""The kernels of the gates' gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from aaa.attention import dense
from aaa.attention.kernels.tiles import (
    crossing,
    dropout_factor,
    is_open,
    listed_tokens,
    load_tile,
    on_diagonals,
    share_of,
)

MAX_CLOSED_SCORE = tl.constexpr(dense.MAX_CLOSED_SCORE)


@triton.jit
def axis_gradient_kernel(
    query, key, value, gradient, highests, log_totals, deltas, of_gates,
    wanted_list, wanted_count, others, other_list, other_count, diagonals, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    num_heads, wanted_heads, other_heads, diagonal_heads,
    num_tokens, num_diagonals, longest_list, window, part_stride, scaling, dropout,
    ROWS: tl.constexpr, WINDOWED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of rows' gates, or of columns', that stand in a list.

    The sum over the cells that a gate alone decides, those that neither the other axis nor a
    diagonal opens, with the tokens of a second list: all, or a sample. The own axis is that of the
    gates, in tiles of BLOCK_Q, whichever it is. The third axis of the grid divides the second
    list; its parts are (parts, B, H, N).
    """
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    wanted, other_gates = b * wanted_heads + h % wanted_heads, b * other_heads + h % other_heads
    diagonals += (b * diagonal_heads + h % diagonal_heads) * num_diagonals
    others += other_gates * num_tokens
    seed = tl.load(seeds) + bh
    count = tl.load(wanted_count + wanted)
    first = tl.program_id(0) * BLOCK_Q
    if first >= count:
        return
    own, computed = listed_tokens(wanted_list + wanted * num_tokens, first, count, BLOCK_Q)
    query += b * q_b + h * q_h
    key += b * k_b + h * k_h
    value += b * v_b + h * v_h
    gradient += b * g_b + h * g_h
    highests += bh * num_tokens
    log_totals += bh * num_tokens
    deltas += bh * num_tokens
    # As (own, other), whichever of them are the queries.
    if ROWS:
        left = load_tile(query, own, computed, q_n, D, BLOCK_D)
        left_value = load_tile(gradient, own, computed, g_n, D, BLOCK_D)
        highest = tl.load(highests + own, mask=computed, other=0.0)[:, None]
        log_total = tl.load(log_totals + own, mask=computed, other=float("inf"))[:, None]
        delta = tl.load(deltas + own, mask=computed, other=0.0)[:, None]
    else:
        left = load_tile(key, own, computed, k_n, D, BLOCK_D)
        left_value = load_tile(value, own, computed, v_n, D, BLOCK_D)
    result = tl.zeros([BLOCK_Q], tl.float32)
    part = tl.program_id(2)
    start, end = share_of(0, tl.load(other_count + b), part, tl.num_programs(2), BLOCK_K)
    for slot in range(start, end, BLOCK_K):
        other, valid = listed_tokens(other_list + b * longest_list, slot, end, BLOCK_K)
        alone = valid & (is_open(others, other, valid) == 0)
        undecided = crossing(own, other, computed, alone, window, WINDOWED)
        undecided = undecided & (on_diagonals(diagonals, num_diagonals, own, other) == 0)
        if ROWS:
            right = load_tile(key, other, valid, k_n, D, BLOCK_D)
            right_value = load_tile(value, other, valid, v_n, D, BLOCK_D)
        else:
            right = load_tile(query, other, valid, q_n, D, BLOCK_D)
            right_value = load_tile(gradient, other, valid, g_n, D, BLOCK_D)
            highest = tl.load(highests + other, mask=valid, other=0.0)[None, :]
            log_total = tl.load(log_totals + other, mask=valid, other=float("inf"))[None, :]
            delta = tl.load(deltas + other, mask=valid, other=0.0)[None, :]
        scores = tl.dot(left, tl.trans(right), input_precision=PRECISION) * scaling
        of_weights = tl.dot(left_value, tl.trans(right_value), input_precision=PRECISION)
        if DROPOUT:
            if ROWS:
                of_weights *= dropout_factor(seed, dropout, num_tokens, own, other)
            else:
                of_weights *= tl.trans(dropout_factor(seed, dropout, num_tokens, other, own))
        bounded = tl.minimum(scores - highest, MAX_CLOSED_SCORE)
        weights = tl.exp(bounded + (highest - log_total))
        result += tl.sum(tl.where(undecided, weights * (of_weights - delta), 0.0), 1)
    place = part.to(tl.int64) * part_stride + bh * num_tokens
    tl.store(of_gates + place + own, result, mask=computed)


@triton.jit
def diagonal_gradient_kernel(
    query, key, value, gradient, highests, log_totals, deltas, of_gates,
    rows, columns, spans, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    num_heads, row_heads, column_heads, num_tokens, num_diagonals, window, part_stride,
    scaling, dropout,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of one distance's gate, open or closed: both of its diagonals, cell by cell.

    The third axis of the grid divides the text; its parts are (parts, B, H, K).
    """
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    distance = tl.program_id(0)
    if distance > window:
        return
    rows += (b * row_heads + h % row_heads) * num_tokens
    columns += (b * column_heads + h % column_heads) * num_tokens
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    seed = tl.load(seeds) + bh
    query += b * q_b + h * q_h
    key += b * k_b + h * k_h
    value += b * v_b + h * v_h
    gradient += b * g_b + h * g_h
    at = bh * num_tokens
    result = tl.zeros([BLOCK], tl.float32)
    part = tl.program_id(2)
    first, last = share_of(start, end, part, tl.num_programs(2), BLOCK)
    for i0 in range(first, last, BLOCK):
        i = i0 + tl.arange(0, BLOCK)
        real = i < last
        queries = load_tile(query, i, real, q_n, D, BLOCK_D).to(tl.float32)
        gradients = load_tile(gradient, i, real, g_n, D, BLOCK_D).to(tl.float32)
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
            keys = load_tile(key, j, undecided, k_n, D, BLOCK_D).to(tl.float32)
            values = load_tile(value, j, undecided, v_n, D, BLOCK_D).to(tl.float32)
            scores = tl.sum(queries * keys, 1) * scaling
            of_weights = tl.sum(gradients * values, 1)
            if DROPOUT:
                cell = i.to(tl.int64) * num_tokens + j
                of_weights *= tl.where(tl.rand(seed, cell) >= dropout, 1 / (1 - dropout), 0.0)
            bounded = tl.minimum(scores - highest, MAX_CLOSED_SCORE)
            weights = tl.exp(bounded + (highest - log_total))
            result += tl.where(undecided, weights * (of_weights - delta), 0.0)
    place = part.to(tl.int64) * part_stride + bh * num_diagonals
    tl.store(of_gates + place + distance, tl.sum(result))
