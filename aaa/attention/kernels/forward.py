"""The forward kernel, and the one that joins what it divided."""

from __future__ import annotations

import math

import triton
import triton.language as tl

from aaa.attention.kernels.tiles import (
    band_walk,
    crossing,
    diagonals_of,
    dropout_factor,
    is_open,
    list_of,
    listed_tokens,
    load_tile,
    on_diagonals,
    open_tokens,
    open_walk,
    own_tile,
    parts_from,
    seed_of,
    span_and_lists,
    splits_of,
    store_tile,
    text_and_head,
)

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))


@triton.jit
def _attend(
    queries, i, j, opened, valid, key, value, stride, scaling, seed, dropout, num_tokens,
    highest, total, result,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One more tile of keys under the online softmax, its scores to base 2."""
    keys = load_tile(key, j, valid, stride, D, BLOCK_D)
    scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scaling
    scores = tl.where(opened, scores, float("-inf"))
    raised = tl.maximum(highest, tl.max(scores, 1))
    base = tl.where(raised == float("-inf"), 0.0, raised)
    weights = tl.exp2(scores - base[:, None])
    shrink = tl.exp2(highest - base)
    total = total * shrink + tl.sum(weights, 1)
    if DROPOUT:
        weights *= dropout_factor(seed, dropout, num_tokens, i, j)
    values = load_tile(value, j, valid, stride, D, BLOCK_D)
    added = tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
    return raised, total, result * shrink[:, None] + added


@triton.jit
def _store_results(
    output, highests, log_totals, i, written, stride, highest, total, result,
    D: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    store_tile(output, i, written, stride, result / total[:, None], D, BLOCK_D)
    tl.store(highests + i, tl.where(empty, 0.0, highest * LN_2), mask=written)
    # Infinite where there is nothing to attend to: every probability is then 0.
    log_total = tl.where(empty, float("inf"), (highest + tl.log2(total)) * LN_2)
    tl.store(log_totals + i, log_total, mask=written)


@triton.jit
def forward_kernel(
    query, key, value, output, highests, log_totals, parts,
    gates, lists, counts, diagonals, spans, seeds,
    num_heads, list_heads, diagonal_texts, diagonal_heads, num_tokens, num_diagonals, window,
    list_programs, most_splits, scaling, dropout,
    WINDOWED: tl.constexpr, NARROW: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Output, largest open score and log-sum-exp of each query, in one pass over its keys."""
    bh, b, h, place = text_and_head(num_heads, num_tokens, D)
    stride = num_heads * D
    start, end, rows, row_list, num_rows, columns, column_list, num_columns = span_and_lists(
        gates, lists, counts, spans, b, h, num_heads, list_heads, num_tokens
    )
    listed, i, computed, written, splits, split, slots = own_tile(
        rows, row_list, num_rows, start, end, num_tokens, list_programs, most_splits, BLOCK_Q
    )
    if tl.max(written.to(tl.int32)) == 0:
        return
    diagonals, bits = diagonals_of(
        diagonals, b, h, diagonal_texts, diagonal_heads, num_diagonals, NARROW
    )
    queries = load_tile(query + place, i, computed, stride, D, BLOCK_D)
    key += place
    value += place
    seed = seed_of(seeds, bh, DROPOUT)
    scaling *= LOG2_E
    highest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    result = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    first, count = open_walk(
        listed, i, computed, num_columns, window, split, splits, start, end, num_tokens,
        WINDOWED, BLOCK_K,
    )  # fmt: skip
    for slot in range(0, count, BLOCK_K):
        j, valid = open_tokens(listed, column_list, first, slot, count, BLOCK_K)
        opened = crossing(i, j, computed, valid, window, WINDOWED)
        highest, total, result = _attend(
            queries, i, j, opened, valid, key, value, stride, scaling, seed, dropout, num_tokens,
            highest, total, result, D, BLOCK_D, PRECISION, DROPOUT,
        )  # fmt: skip
    first, last = band_walk(listed, list_programs, num_diagonals - 1, start, end, BLOCK_Q)
    for j0 in range(first, last, BLOCK_K):
        j = j0 + tl.arange(0, BLOCK_K)
        valid = j < last
        alone = valid & (is_open(columns, j, valid) == 0)
        opened = computed[:, None] & alone[None, :]
        opened = opened & on_diagonals(diagonals, bits, num_diagonals, i, j, NARROW)
        worth = True
        if not NARROW:  # far diagonals leave tiles closed
            worth = tl.max(tl.max(opened.to(tl.int32), 1)) > 0
        if worth:
            highest, total, result = _attend(
                queries, i, j, opened, valid, key, value, stride, scaling, seed, dropout,
                num_tokens, highest, total, result, D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    at = bh * num_tokens
    if splits > 1:
        part_results = parts_from(parts, 0, D, num_tokens)
        store_tile(part_results, slots, written, D, result, D, BLOCK_D)
        tl.store(parts_from(parts, D, 1, num_tokens) + slots, highest, mask=written)
        tl.store(parts_from(parts, D + 1, 1, num_tokens) + slots, total, mask=written)
    else:
        _store_results(
            output + place, highests + at, log_totals + at, i, written, stride,
            highest, total, result, D, BLOCK_D,
        )  # fmt: skip


@triton.jit
def merge_kernel(
    output, highests, log_totals, parts, gates, lists, counts,
    num_heads, list_heads, num_tokens, most_splits,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What the programs that divided an open row's keys have found, as one softmax."""
    bh, b, h, place = text_and_head(num_heads, num_tokens, D)
    _, row_list, count = list_of(0, gates, lists, counts, b, h, num_heads, list_heads, num_tokens)
    splits = splits_of(count, num_tokens, most_splits)
    first = tl.program_id(0) * BLOCK
    if (splits == 1) | (first >= count):
        return
    i, written = listed_tokens(row_list, first, count, BLOCK)
    at = bh * num_tokens
    part_results = parts_from(parts, 0, D, num_tokens)
    part_highests = parts_from(parts, D, 1, num_tokens)
    part_totals = parts_from(parts, D + 1, 1, num_tokens)
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    result = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for split in range(0, splits):
        slots = split * count + first + tl.arange(0, BLOCK)
        part = tl.load(part_highests + slots, mask=written, other=float("-inf"))
        raised = tl.maximum(highest, part)
        base = tl.where(raised == float("-inf"), 0.0, raised)
        shrink, weight = tl.exp2(highest - base), tl.exp2(part - base)
        part_total = tl.load(part_totals + slots, mask=written, other=0.0)
        part_result = load_tile(part_results, slots, written, D, D, BLOCK_D)
        total = total * shrink + part_total * weight
        result = result * shrink[:, None] + part_result * weight[:, None]
        highest = raised
    _store_results(
        output + place, highests + at, log_totals + at, i, written, num_heads * D,
        highest, total, result, D, BLOCK_D,
    )  # fmt: skip
