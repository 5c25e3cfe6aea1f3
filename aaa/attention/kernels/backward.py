"""The kernels of the gradients of queries, and of keys and values."""

from __future__ import annotations

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
    queries, gradients, log_total, delta, i, j, opened, valid, key, value, k_n, v_n, scaling,
    seed, dropout, num_tokens, result,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    keys = load_tile(key, j, valid, k_n, D, BLOCK_D)
    values = load_tile(value, j, valid, v_n, D, BLOCK_D)
    _, of_scores = _of_scores(
        queries, keys, values, gradients, log_total, delta, i, j, opened, scaling,
        seed, dropout, num_tokens, PRECISION, DROPOUT,
    )  # fmt: skip
    return result + tl.dot(of_scores.to(keys.dtype), keys, input_precision=PRECISION)


@triton.jit
def _query_walk(
    queries, gradients, log_total, delta, i, computed, key, value,
    columns, column_list, in_list, diagonals, start, end,
    split, splits, k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
    LISTED: tl.constexpr, WINDOWED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The way of ``_forward_walk`` again, for the gradient of the queries."""
    result = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    if not LISTED:
        for slot in range(0, in_list, BLOCK_K):
            j, valid = listed_tokens(column_list, slot, in_list, BLOCK_K)
            opened = crossing(i, j, computed, valid, window, WINDOWED)
            result = _add_to_queries(
                queries, gradients, log_total, delta, i, j, opened, valid, key, value, k_n, v_n,
                scaling, seed, dropout, num_tokens, result, D, BLOCK_D, PRECISION, DROPOUT,
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
            result = _add_to_queries(
                queries, gradients, log_total, delta, i, j, opened, valid, key, value, k_n, v_n,
                scaling, seed, dropout, num_tokens, result, D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    return result


@triton.jit
def query_gradient_kernel(
    query, key, value, gradient, log_totals, deltas, of_queries, part_queries,
    rows, row_list, row_count, columns, column_list, column_count, diagonals, spans, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    num_heads, row_heads, column_heads, diagonal_heads,
    num_tokens, num_diagonals, window, list_programs, most_splits, scaling, dropout,
    WINDOWED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of the queries, own axis the queries; (B, H, N, D), contiguous."""
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
    gradients = load_tile(gradient + b * g_b + h * g_h, i, computed, g_n, D, BLOCK_D)
    at = bh * num_tokens + i
    log_total = tl.load(log_totals + at, mask=computed, other=float("inf"))
    delta = tl.load(deltas + at, mask=computed, other=0.0)
    key += b * k_b + h * k_h
    value += b * v_b + h * v_h
    column_list += of_columns * num_tokens
    in_list = tl.load(column_count + of_columns)
    seed = tl.load(seeds) + bh
    if listed:
        result = _query_walk(
            queries, gradients, log_total, delta, i, computed, key, value,
            columns, column_list, in_list, diagonals, start, end,
            split, splits, k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            True, WINDOWED, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    else:
        result = _query_walk(
            queries, gradients, log_total, delta, i, computed, key, value,
            columns, column_list, in_list, diagonals, start, end,
            split, splits, k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            False, WINDOWED, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    result *= scaling
    at = bh * num_tokens * D
    if splits > 1:
        slots = split * own_count + places
        store_tile(part_queries + at, slots, written, D, result, D, BLOCK_D)
    else:
        store_tile(of_queries + at, i, written, D, result, D, BLOCK_D)


@triton.jit
def _add_to_keys(
    keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, q_n, g_n, scaling,
    seed, dropout, num_tokens, of_keys, of_values,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    queries = load_tile(query, i, valid, q_n, D, BLOCK_D)
    gradients = load_tile(gradient, i, valid, g_n, D, BLOCK_D)
    log_total = tl.load(log_totals + i, mask=valid, other=float("inf"))
    delta = tl.load(deltas + i, mask=valid, other=0.0)
    reached, of_scores = _of_scores(
        queries, keys, values, gradients, log_total, delta, i, j, opened, scaling,
        seed, dropout, num_tokens, PRECISION, DROPOUT,
    )  # fmt: skip
    reached, of_scores = reached.to(gradients.dtype), of_scores.to(queries.dtype)
    of_values += tl.dot(tl.trans(reached), gradients, input_precision=PRECISION)
    of_keys += tl.dot(tl.trans(of_scores), queries, input_precision=PRECISION)
    return of_keys, of_values


@triton.jit
def _key_walk(
    keys, values, j, computed, query, gradient, log_totals, deltas,
    rows, row_list, in_list, diagonals, start, end,
    split, splits, q_n, g_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
    LISTED: tl.constexpr, WINDOWED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """All queries of a tile of keys: gathered rows once, then what lies side by side."""
    of_keys = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    of_values = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    if not LISTED:
        for slot in range(0, in_list, BLOCK_Q):
            i, valid = listed_tokens(row_list, slot, in_list, BLOCK_Q)
            opened = crossing(i, j, valid, computed, window, WINDOWED)
            of_keys, of_values = _add_to_keys(
                keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, q_n, g_n,
                scaling, seed, dropout, num_tokens, of_keys, of_values,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    first, last = reachable(
        j, computed, window if LISTED else num_diagonals - 1, start, end, num_tokens
    )
    if LISTED:
        first, last = share_of(first, last, split, splits, BLOCK_Q)
    for i0 in range(first, last, BLOCK_Q):
        i = i0 + tl.arange(0, BLOCK_Q)
        valid = i < last
        worth = True
        if LISTED:
            opened = crossing(i, j, valid, computed, window, WINDOWED)
        else:
            alone = valid & (is_open(rows, i, valid) == 0)
            opened = (alone[:, None] & computed[None, :]) & on_diagonals(
                diagonals, num_diagonals, i, j
            )
            worth = tl.max(tl.max(opened.to(tl.int32), 1)) > 0  # far diagonals leave tiles closed
        if worth:
            of_keys, of_values = _add_to_keys(
                keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, q_n, g_n,
                scaling, seed, dropout, num_tokens, of_keys, of_values,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    return of_keys, of_values


@triton.jit
def key_gradient_kernel(
    query, key, value, gradient, log_totals, deltas, of_keys, of_values, part_keys, part_values,
    rows, row_list, row_count, columns, column_list, column_count, diagonals, spans, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    num_heads, row_heads, column_heads, diagonal_heads,
    num_tokens, num_diagonals, window, list_programs, most_splits, scaling, dropout,
    WINDOWED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradients of keys and values, own axis the keys; (B, H, N, D), contiguous."""
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    of_rows, of_columns = b * row_heads + h % row_heads, b * column_heads + h % column_heads
    rows += of_rows * num_tokens
    columns += of_columns * num_tokens
    diagonals += (b * diagonal_heads + h % diagonal_heads) * num_diagonals
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    own_count = tl.load(column_count + of_columns)
    listed, places, j, computed, written, splits, split = own_tile(
        columns, column_list + of_columns * num_tokens, own_count, start, end,
        num_tokens, list_programs, most_splits, BLOCK_K,
    )  # fmt: skip
    if tl.max(written.to(tl.int32)) == 0:
        return
    keys = load_tile(key + b * k_b + h * k_h, j, computed, k_n, D, BLOCK_D)
    values = load_tile(value + b * v_b + h * v_h, j, computed, v_n, D, BLOCK_D)
    query += b * q_b + h * q_h
    gradient += b * g_b + h * g_h
    log_totals += bh * num_tokens
    deltas += bh * num_tokens
    row_list += of_rows * num_tokens
    in_list = tl.load(row_count + of_rows)
    seed = tl.load(seeds) + bh
    if listed:
        of_key, of_value = _key_walk(
            keys, values, j, computed, query, gradient, log_totals, deltas,
            rows, row_list, in_list, diagonals, start, end,
            split, splits, q_n, g_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            True, WINDOWED, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    else:
        of_key, of_value = _key_walk(
            keys, values, j, computed, query, gradient, log_totals, deltas,
            rows, row_list, in_list, diagonals, start, end,
            split, splits, q_n, g_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            False, WINDOWED, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    of_key *= scaling
    at = bh * num_tokens * D
    if splits > 1:
        slots = split * own_count + places
        store_tile(part_keys + at, slots, written, D, of_key, D, BLOCK_D)
        store_tile(part_values + at, slots, written, D, of_value, D, BLOCK_D)
    else:
        store_tile(of_keys + at, j, written, D, of_key, D, BLOCK_D)
        store_tile(of_values + at, j, written, D, of_value, D, BLOCK_D)


@triton.jit
def sum_kernel(
    parts, sums, own_list, own_count, num_heads, own_heads, num_tokens, most_splits,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of listed tokens, from the programs that divided their walk."""
    bh = tl.program_id(1).to(tl.int64)
    of_own = bh // num_heads * own_heads + bh % num_heads % own_heads
    count = tl.load(own_count + of_own)
    splits = splits_of(count, num_tokens, most_splits)
    first = tl.program_id(0) * BLOCK
    if (splits == 1) | (first >= count):
        return
    own, written = listed_tokens(own_list + of_own * num_tokens, first, count, BLOCK)
    at = bh * num_tokens * D
    result = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    for split in range(0, splits):
        slots = split * count + first + tl.arange(0, BLOCK)
        result += load_tile(parts + at, slots, written, D, D, BLOCK_D)
    store_tile(sums + at, own, written, D, result, D, BLOCK_D)
