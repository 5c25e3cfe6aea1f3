"""The kernels of the gradients of queries, and of keys and values."""

from __future__ import annotations

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


@triton.jit
def _of_scores(
    queries, keys, values, gradients, log_total, delta, i, j, opened, scaling,
    seed, dropout, num_tokens, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Of a tile: the probabilities that reached the values, and the gradient of the scores."""
    scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scaling
    weights = tl.where(opened, tl.exp(scores - log_total[:, None]), 0.0)
    of_weights = tl.dot(gradients, tl.trans(values), input_precision=PRECISION)
    reached = weights
    if DROPOUT:
        kept = dropout_factor(seed, dropout, num_tokens, i, j)
        of_weights *= kept
        reached = weights * kept
    return reached, weights * (of_weights - delta[:, None])


@triton.jit
def _add_to_queries(
    queries, gradients, log_total, delta, i, j, opened, valid, key, value, stride, scaling,
    seed, dropout, num_tokens, result,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    keys = load_tile(key, j, valid, stride, D, BLOCK_D)
    values = load_tile(value, j, valid, stride, D, BLOCK_D)
    _, of_scores = _of_scores(
        queries, keys, values, gradients, log_total, delta, i, j, opened, scaling,
        seed, dropout, num_tokens, PRECISION, DROPOUT,
    )  # fmt: skip
    return result + tl.dot(of_scores.to(keys.dtype), keys, input_precision=PRECISION)


@triton.jit
def query_gradient_kernel(
    query, key, value, output, gradient, log_totals, deltas, of_queries, parts,
    gates, lists, counts, diagonals, spans, seeds,
    num_heads, list_heads, diagonal_texts, diagonal_heads, num_tokens, num_diagonals, window,
    list_programs, most_splits, scaling, dropout,
    WINDOWED: tl.constexpr, NARROW: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of the queries, own axis the queries, by the way of ``forward_kernel``.

    And each query's ``deltas``, the mean of its probabilities' gradients, for the other kernels.
    """
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
    gradients = load_tile(gradient + place, i, computed, stride, D, BLOCK_D)
    outputs = load_tile(output + place, i, computed, stride, D, BLOCK_D)
    delta = tl.sum(gradients.to(tl.float32) * outputs.to(tl.float32), 1)
    at = bh * num_tokens
    if split == 0:
        tl.store(deltas + at + i, delta, mask=written)
    log_total = tl.load(log_totals + at + i, mask=computed, other=float("inf"))
    key += place
    value += place
    seed = seed_of(seeds, bh, DROPOUT)
    result = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    first, count = open_walk(
        listed, i, computed, num_columns, window, split, splits, start, end, num_tokens,
        WINDOWED, BLOCK_K,
    )  # fmt: skip
    for slot in range(0, count, BLOCK_K):
        j, valid = open_tokens(listed, column_list, first, slot, count, BLOCK_K)
        opened = crossing(i, j, computed, valid, window, WINDOWED)
        result = _add_to_queries(
            queries, gradients, log_total, delta, i, j, opened, valid, key, value, stride,
            scaling, seed, dropout, num_tokens, result, D, BLOCK_D, PRECISION, DROPOUT,
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
            result = _add_to_queries(
                queries, gradients, log_total, delta, i, j, opened, valid, key, value, stride,
                scaling, seed, dropout, num_tokens, result, D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    result *= scaling
    if splits > 1:
        part_queries = parts_from(parts, 0, D, num_tokens)
        store_tile(part_queries, slots, written, D, result, D, BLOCK_D)
    else:
        store_tile(of_queries + place, i, written, stride, result, D, BLOCK_D)


@triton.jit
def _add_to_keys(
    keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, stride, scaling,
    seed, dropout, num_tokens, of_key, of_value,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    queries = load_tile(query, i, valid, stride, D, BLOCK_D)
    gradients = load_tile(gradient, i, valid, stride, D, BLOCK_D)
    log_total = tl.load(log_totals + i, mask=valid, other=float("inf"))
    delta = tl.load(deltas + i, mask=valid, other=0.0)
    reached, of_scores = _of_scores(
        queries, keys, values, gradients, log_total, delta, i, j, opened, scaling,
        seed, dropout, num_tokens, PRECISION, DROPOUT,
    )  # fmt: skip
    reached, of_scores = reached.to(gradients.dtype), of_scores.to(queries.dtype)
    of_value += tl.dot(tl.trans(reached), gradients, input_precision=PRECISION)
    of_key += tl.dot(tl.trans(of_scores), queries, input_precision=PRECISION)
    return of_key, of_value


@triton.jit
def key_gradient_kernel(
    query, key, value, gradient, log_totals, deltas, of_keys, of_values, parts,
    gates, lists, counts, diagonals, spans, seeds,
    num_heads, list_heads, diagonal_texts, diagonal_heads, num_tokens, num_diagonals, window,
    list_programs, most_splits, scaling, dropout,
    WINDOWED: tl.constexpr, NARROW: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradients of keys and values, own axis the keys: gathered rows, then neighbours."""
    bh, b, h, place = text_and_head(num_heads, num_tokens, D)
    stride = num_heads * D
    start, end, rows, row_list, num_rows, columns, column_list, num_columns = span_and_lists(
        gates, lists, counts, spans, b, h, num_heads, list_heads, num_tokens
    )
    listed, j, computed, written, splits, split, slots = own_tile(
        columns, column_list, num_columns, start, end, num_tokens, list_programs, most_splits,
        BLOCK_K,
    )  # fmt: skip
    if tl.max(written.to(tl.int32)) == 0:
        return
    diagonals, bits = diagonals_of(
        diagonals, b, h, diagonal_texts, diagonal_heads, num_diagonals, NARROW
    )
    keys = load_tile(key + place, j, computed, stride, D, BLOCK_D)
    values = load_tile(value + place, j, computed, stride, D, BLOCK_D)
    query += place
    gradient += place
    at = bh * num_tokens
    log_totals += at
    deltas += at
    seed = seed_of(seeds, bh, DROPOUT)
    of_key = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    of_value = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    first, count = open_walk(
        listed, j, computed, num_rows, window, split, splits, start, end, num_tokens,
        WINDOWED, BLOCK_Q,
    )  # fmt: skip
    for slot in range(0, count, BLOCK_Q):
        i, valid = open_tokens(listed, row_list, first, slot, count, BLOCK_Q)
        opened = crossing(i, j, valid, computed, window, WINDOWED)
        of_key, of_value = _add_to_keys(
            keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, stride,
            scaling, seed, dropout, num_tokens, of_key, of_value, D, BLOCK_D, PRECISION, DROPOUT,
        )  # fmt: skip
    first, last = band_walk(listed, list_programs, num_diagonals - 1, start, end, BLOCK_K)
    for i0 in range(first, last, BLOCK_Q):
        i = i0 + tl.arange(0, BLOCK_Q)
        valid = i < last
        alone = valid & (is_open(rows, i, valid) == 0)
        opened = alone[:, None] & computed[None, :]
        opened = opened & on_diagonals(diagonals, bits, num_diagonals, i, j, NARROW)
        worth = True
        if not NARROW:  # far diagonals leave tiles closed
            worth = tl.max(tl.max(opened.to(tl.int32), 1)) > 0
        if worth:
            of_key, of_value = _add_to_keys(
                keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, stride,
                scaling, seed, dropout, num_tokens, of_key, of_value,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    of_key *= scaling
    if splits > 1:
        part_keys = parts_from(parts, 0, D, num_tokens)
        store_tile(part_keys, slots, written, D, of_key, D, BLOCK_D)
        part_values = parts_from(parts, D, D, num_tokens)
        store_tile(part_values, slots, written, D, of_value, D, BLOCK_D)
    else:
        store_tile(of_keys + place, j, written, stride, of_key, D, BLOCK_D)
        store_tile(of_values + place, j, written, stride, of_value, D, BLOCK_D)


@triton.jit
def sum_kernel(
    sums, more_sums, parts, gates, lists, counts,
    num_heads, list_heads, num_tokens, most_splits,
    AXIS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of listed tokens, from the programs that divided their walk.

    The third axis of the grid says of which of the two tensors.
    """
    _, b, h, place = text_and_head(num_heads, num_tokens, D)
    _, own_list, count = list_of(
        AXIS, gates, lists, counts, b, h, num_heads, list_heads, num_tokens
    )
    splits = splits_of(count, num_tokens, most_splits)
    first = tl.program_id(0) * BLOCK
    if (splits == 1) | (first >= count):
        return
    own, written = listed_tokens(own_list, first, count, BLOCK)
    own_parts = parts_from(parts, tl.program_id(2) * D, D, num_tokens)
    result = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for split in range(0, splits):
        slots = split * count + first + tl.arange(0, BLOCK)
        result += load_tile(own_parts, slots, written, D, D, BLOCK_D)
    if tl.program_id(2) == 0:
        store_tile(sums + place, own, written, num_heads * D, result, D, BLOCK_D)
    else:
        store_tile(more_sums + place, own, written, num_heads * D, result, D, BLOCK_D)
