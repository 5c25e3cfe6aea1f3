"""The forward kernel."""

from __future__ import annotations

import math

import triton
import triton.language as tl

from aaa.attention.kernels.tiles import (
    crossing,
    dropout_factor,
    is_open,
    listed_tokens,
    load_tile,
    on_diagonals,
    own_tile,
    reachable,
    share_of,
    splits_of,
    store_tile,
)

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _attend(
    queries, i, j, opened, valid, key, value, k_n, v_n, scaling,
    seed, dropout, num_tokens, highest, total, result,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One more tile of keys under the online softmax, its scores to base 2."""
    keys = load_tile(key, j, valid, k_n, D, BLOCK_D)
    scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scaling
    scores = tl.where(opened, scores, float("-inf"))
    raised = tl.maximum(highest, tl.max(scores, 1))
    base = tl.where(raised == float("-inf"), 0.0, raised)
    weights = tl.exp2(scores - base[:, None])
    shrink = tl.exp2(highest - base)
    total = total * shrink + tl.sum(weights, 1)
    if DROPOUT:
        weights *= dropout_factor(seed, dropout, num_tokens, i, j)
    values = load_tile(value, j, valid, v_n, D, BLOCK_D)
    added = tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
    return raised, total, result * shrink[:, None] + added


@triton.jit
def _forward_walk(
    queries, i, computed, key, value, columns, column_list, in_list, diagonals, start, end,
    split, splits, k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
    LISTED: tl.constexpr, WINDOWED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """All keys of a tile of queries: gathered columns once, then what lies side by side."""
    highest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    result = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    if not LISTED:
        for slot in range(0, in_list, BLOCK_K):
            j, valid = listed_tokens(column_list, slot, in_list, BLOCK_K)
            opened = crossing(i, j, computed, valid, window, WINDOWED)
            highest, total, result = _attend(
                queries, i, j, opened, valid, key, value, k_n, v_n, scaling,
                seed, dropout, num_tokens, highest, total, result,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    first, last = reachable(
        i, computed, window if LISTED else num_diagonals - 1, start, end, num_tokens
    )
    if LISTED:
        first, last = share_of(first, last, split, splits, BLOCK_K)
    for j0 in range(first, last, BLOCK_K):
        j = j0 + tl.arange(0, BLOCK_K)
        valid = j < last
        worth = True
        if LISTED:
            opened = crossing(i, j, computed, valid, window, WINDOWED)
        else:
            alone = valid & (is_open(columns, j, valid) == 0)
            opened = (computed[:, None] & alone[None, :]) & on_diagonals(
                diagonals, num_diagonals, i, j
            )
            worth = tl.max(tl.max(opened.to(tl.int32), 1)) > 0  # far diagonals leave tiles closed
        if worth:
            highest, total, result = _attend(
                queries, i, j, opened, valid, key, value, k_n, v_n, scaling,
                seed, dropout, num_tokens, highest, total, result,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    return highest, total, result


@triton.jit
def _store_results(
    output, highests, log_totals, i, written, o_n, highest, total, result,
    D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    store_tile(output, i, written, o_n, result / total[:, None], D, BLOCK_D)
    tl.store(highests + i, tl.where(empty, 0.0, highest * LN_2), mask=written)
    # Infinite where there is nothing to attend to: every probability is then 0.
    log_total = tl.where(empty, float("inf"), (highest + tl.log2(total)) * LN_2)
    tl.store(log_totals + i, log_total, mask=written)


@triton.jit
def forward_kernel(
    query, key, value, output, highests, log_totals, part_results, part_highests, part_totals,
    rows, row_list, row_count, columns, column_list, column_count, diagonals, spans, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n,
    num_heads, row_heads, column_heads, diagonal_heads,
    num_tokens, num_diagonals, window, list_programs, most_splits, scaling, dropout,
    WINDOWED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Output, largest open score and log-sum-exp of each query, in one pass over its keys."""
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    of_rows, of_columns = b * row_heads + h % row_heads, b * column_heads + h % column_heads
    rows += of_rows * num_tokens
    columns += of_columns * num_tokens
    diagonals += (b * diagonal_heads + h % diagonal_heads) * num_diagonals
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    own_count = tl.load(row_count + of_rows)
    listed, places, i, computed, written, splits, split = own_tile(
        rows, row_list + of_rows * num_tokens, own_count, start, end,
        num_tokens, list_programs, most_splits, BLOCK_Q,
    )  # fmt: skip
    if tl.max(written.to(tl.int32)) == 0:
        return
    queries = load_tile(query + b * q_b + h * q_h, i, computed, q_n, D, BLOCK_D)
    key += b * k_b + h * k_h
    value += b * v_b + h * v_h
    column_list += of_columns * num_tokens
    in_list = tl.load(column_count + of_columns)
    seed = tl.load(seeds) + bh
    scaling *= LOG2_E
    if listed:
        highest, total, result = _forward_walk(
            queries, i, computed, key, value, columns, column_list, in_list, diagonals, start, end,
            split, splits, k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            True, WINDOWED, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    else:
        highest, total, result = _forward_walk(
            queries, i, computed, key, value, columns, column_list, in_list, diagonals, start, end,
            split, splits, k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            False, WINDOWED, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    at = bh * num_tokens
    if splits > 1:
        slots = split * own_count + places
        store_tile(part_results + at * D, slots, written, D, result, D, BLOCK_D)
        tl.store(part_highests + at + slots, highest, mask=written)
        tl.store(part_totals + at + slots, total, mask=written)
    else:
        _store_results(
            output + b * o_b + h * o_h, highests + at, log_totals + at, i, written, o_n,
            highest, total, result, D, BLOCK_D,
        )  # fmt: skip


@triton.jit
def merge_kernel(
    output, highests, log_totals, part_results, part_highests, part_totals, row_list, row_count,
    o_b, o_h, o_n, num_heads, row_heads, num_tokens, most_splits,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What the programs that divided an open row's keys have found, as one softmax."""
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    of_rows = b * row_heads + h % row_heads
    count = tl.load(row_count + of_rows)
    splits = splits_of(count, num_tokens, most_splits)
    first = tl.program_id(0) * BLOCK
    if (splits == 1) | (first >= count):
        return
    i, written = listed_tokens(row_list + of_rows * num_tokens, first, count, BLOCK)
    at = bh * num_tokens
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    result = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for split in range(0, splits):
        slots = split * count + first + tl.arange(0, BLOCK)
        part = tl.load(part_highests + at + slots, mask=written, other=float("-inf"))
        raised = tl.maximum(highest, part)
        base = tl.where(raised == float("-inf"), 0.0, raised)
        shrink, weight = tl.exp2(highest - base), tl.exp2(part - base)
        part_total = tl.load(part_totals + at + slots, mask=written, other=0.0)
        part_result = load_tile(part_results + at * D, slots, written, D, D, BLOCK_D)
        total = total * shrink + part_total * weight
        result = result * shrink[:, None] + part_result * weight[:, None]
        highest = raised
    _store_results(
        output + b * o_b + h * o_h, highests + at, log_totals + at, i, written, o_n,
        highest, total, result, D, BLOCK_D,
    )  # fmt: skip
