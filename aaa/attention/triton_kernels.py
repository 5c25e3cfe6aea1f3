"""Triton kernels of attention under axes and diagonals; ``triton_axis`` launches them.

A mask of rows, columns and diagonals falls into parts that do not overlap, so that every cell is
counted once: a query whose row is open attends to all keys; any other query to the keys in the
list of open columns, and to the keys of its band that are not in that list. Seen from the keys it
is the same picture transposed. So each kernel has an *own* axis (queries, or keys for their
gradients) and an *other* one, and two kinds of programs: *listed* ones, a gathered tile of the
open gates of the own axis against everything, and *plain* ones, a tile of neighbours against the
list of the other axis and its band. A program writes only what is its own: no atomics, the same
bits in every run. Lists stand in memory as (index, count), so nothing waits for the host.

Offsets: ``i`` queries, ``j`` keys; a span is the first real token and the one after the last.
Gates are int8 of shape (B, 1 or H, N), lists int32 of the same shape, counts (B, 1 or H).
"""

from __future__ import annotations

import triton
import triton.language as tl

MAX_CLOSED_SCORE = tl.constexpr(5.0)  # see aaa.attention.dense


@triton.jit
def _tile(base, index, valid, stride, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows of a matrix by index, (BLOCK, BLOCK_D); 0 where not valid."""
    d = tl.arange(0, BLOCK_D)
    cells = base + index[:, None].to(tl.int64) * stride + d[None, :]
    return tl.load(cells, mask=valid[:, None] & (d[None, :] < D), other=0.0)


@triton.jit
def _store(base, index, valid, stride, tile, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    cells = base + index[:, None].to(tl.int64) * stride + d[None, :]
    tl.store(cells, tile.to(base.dtype.element_ty), mask=valid[:, None] & (d[None, :] < D))


@triton.jit
def _is_open(gates, index, valid):
    return tl.load(gates + index, mask=valid, other=0) != 0


@triton.jit
def _on_diagonals(diagonals, num_diagonals, own, other):
    """Which cells of a tile lie on an open diagonal."""
    distance = tl.abs(own[:, None] - other[None, :])
    return tl.load(diagonals + distance, mask=distance < num_diagonals, other=0) != 0


@triton.jit
def _kept(seed, dropout, num_tokens, i, j):
    """The factor of each probability under dropout, the same whichever kernel asks."""
    cell = i[:, None].to(tl.int64) * num_tokens + j[None, :]
    return tl.where(tl.rand(seed, cell) >= dropout, 1 / (1 - dropout), 0.0)


@triton.jit
def _own_tile(
    gates, tokens, count, start, end, num_tokens, list_tiles, BLOCK: tl.constexpr
):  # fmt: skip
    """What a program is for: whether it is listed, its tokens, those it computes and writes."""
    listed = tl.program_id(0) < list_tiles
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_list = places < tl.where(listed, count, 0)
    neighbours = places - list_tiles * BLOCK
    on_map = (neighbours >= 0) & (neighbours < num_tokens)
    written = in_list | (on_map & (_is_open(gates, neighbours, on_map) == 0))
    index = tl.where(in_list, tl.load(tokens + places, mask=in_list, other=0), neighbours)
    return listed, index, written & (index >= start) & (index < end), written


@triton.jit
def _reach(index, computed, reach, start, end, num_tokens):
    """The part of the span that lies within reach of some of the tokens; empty for none."""
    first = tl.min(tl.where(computed, index, num_tokens))
    last = tl.max(tl.where(computed, index, -num_tokens))
    return tl.maximum(start, first - reach), tl.minimum(end, last + reach + 1)


@triton.jit
def _attend(
    queries, i, j, opened, valid, key, value, k_n, v_n, scaling,
    seed, dropout, num_tokens, highest, total, result,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """One more tile of keys under the online softmax."""
    keys = _tile(key, j, valid, k_n, D, BLOCK_D)
    scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scaling
    scores = tl.where(opened, scores, float("-inf"))
    raised = tl.maximum(highest, tl.max(scores, 1))
    base = tl.where(raised == float("-inf"), 0.0, raised)
    weights = tl.exp(scores - base[:, None])
    shrink = tl.exp(highest - base)
    total = total * shrink + tl.sum(weights, 1)
    if DROPOUT:
        weights *= _kept(seed, dropout, num_tokens, i, j)
    values = _tile(value, j, valid, v_n, D, BLOCK_D)
    added = tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
    return raised, total, result * shrink[:, None] + added


@triton.jit
def _forward_walk(
    queries, i, computed, key, value, columns, column_list, in_list, diagonals, start, end,
    k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
    LISTED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """All keys of a tile of queries: gathered columns once, then what lies side by side."""
    highest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    result = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    if not LISTED:
        for slot in range(0, in_list, BLOCK_K):
            slots = slot + tl.arange(0, BLOCK_K)
            valid = slots < in_list
            j = tl.load(column_list + slots, mask=valid, other=0)
            opened = (computed[:, None] & valid[None, :]) & (
                tl.abs(i[:, None] - j[None, :]) <= window
            )
            highest, total, result = _attend(
                queries, i, j, opened, valid, key, value, k_n, v_n, scaling,
                seed, dropout, num_tokens, highest, total, result,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    first, last = _reach(
        i, computed, window if LISTED else num_diagonals - 1, start, end, num_tokens
    )
    for j0 in range(first, last, BLOCK_K):
        j = j0 + tl.arange(0, BLOCK_K)
        valid = j < last
        if LISTED:
            opened = (computed[:, None] & valid[None, :]) & (
                tl.abs(i[:, None] - j[None, :]) <= window
            )
            highest, total, result = _attend(
                queries, i, j, opened, valid, key, value, k_n, v_n, scaling,
                seed, dropout, num_tokens, highest, total, result,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
        else:
            alone = valid & (_is_open(columns, j, valid) == 0)
            opened = (computed[:, None] & alone[None, :]) & _on_diagonals(
                diagonals, num_diagonals, i, j
            )
            if tl.max(tl.max(opened.to(tl.int32), 1)) > 0:  # far diagonals leave tiles closed
                highest, total, result = _attend(
                    queries, i, j, opened, valid, key, value, k_n, v_n, scaling,
                    seed, dropout, num_tokens, highest, total, result,
                    D, BLOCK_D, PRECISION, DROPOUT,
                )  # fmt: skip
    return highest, total, result


@triton.jit
def forward_kernel(
    query, key, value, output, highests, log_totals,
    rows, row_list, row_count, columns, column_list, column_count, diagonals, spans, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n,
    num_heads, row_heads, column_heads, diagonal_heads,
    num_tokens, num_diagonals, window, list_tiles, scaling, dropout,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Output, largest open score and log-sum-exp of each query, in one pass over its keys."""
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    of_rows, of_columns = b * row_heads + h % row_heads, b * column_heads + h % column_heads
    rows += of_rows * num_tokens
    columns += of_columns * num_tokens
    diagonals += (b * diagonal_heads + h % diagonal_heads) * num_diagonals
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    listed, i, computed, written = _own_tile(
        rows, row_list + of_rows * num_tokens, tl.load(row_count + of_rows), start, end,
        num_tokens, list_tiles, BLOCK_Q,
    )  # fmt: skip
    if tl.max(written.to(tl.int32)) == 0:
        return
    queries = _tile(query + b * q_b + h * q_h, i, computed, q_n, D, BLOCK_D)
    key += b * k_b + h * k_h
    value += b * v_b + h * v_h
    column_list += of_columns * num_tokens
    in_list = tl.load(column_count + of_columns)
    seed = tl.load(seeds) + bh
    if listed:
        highest, total, result = _forward_walk(
            queries, i, computed, key, value, columns, column_list, in_list, diagonals, start, end,
            k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            True, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    else:
        highest, total, result = _forward_walk(
            queries, i, computed, key, value, columns, column_list, in_list, diagonals, start, end,
            k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            False, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    _store(output + b * o_b + h * o_h, i, written, o_n, result / total[:, None], D, BLOCK_D)
    tl.store(highests + bh * num_tokens + i, tl.where(empty, 0.0, highest), mask=written)
    # Infinite where there is nothing to attend to: every probability is then 0.
    log_total = tl.where(empty, float("inf"), highest + tl.log(total))
    tl.store(log_totals + bh * num_tokens + i, log_total, mask=written)


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
        kept = _kept(seed, dropout, num_tokens, i, j)
        of_weights *= kept
        reached = weights * kept
    return reached, weights * (of_weights - delta[:, None])


@triton.jit
def _add_to_queries(
    queries, gradients, log_total, delta, i, j, opened, valid, key, value, k_n, v_n, scaling,
    seed, dropout, num_tokens, result,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    keys = _tile(key, j, valid, k_n, D, BLOCK_D)
    values = _tile(value, j, valid, v_n, D, BLOCK_D)
    _, of_scores = _of_scores(
        queries, keys, values, gradients, log_total, delta, i, j, opened, scaling,
        seed, dropout, num_tokens, PRECISION, DROPOUT,
    )  # fmt: skip
    return result + tl.dot(of_scores.to(keys.dtype), keys, input_precision=PRECISION)


@triton.jit
def _query_walk(
    queries, gradients, log_total, delta, i, computed, key, value,
    columns, column_list, in_list, diagonals, start, end,
    k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
    LISTED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The way of ``_forward_walk`` again, for the gradient of the queries."""
    result = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    if not LISTED:
        for slot in range(0, in_list, BLOCK_K):
            slots = slot + tl.arange(0, BLOCK_K)
            valid = slots < in_list
            j = tl.load(column_list + slots, mask=valid, other=0)
            opened = (computed[:, None] & valid[None, :]) & (
                tl.abs(i[:, None] - j[None, :]) <= window
            )
            result = _add_to_queries(
                queries, gradients, log_total, delta, i, j, opened, valid, key, value, k_n, v_n,
                scaling, seed, dropout, num_tokens, result, D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    first, last = _reach(
        i, computed, window if LISTED else num_diagonals - 1, start, end, num_tokens
    )
    for j0 in range(first, last, BLOCK_K):
        j = j0 + tl.arange(0, BLOCK_K)
        valid = j < last
        if LISTED:
            opened = (computed[:, None] & valid[None, :]) & (
                tl.abs(i[:, None] - j[None, :]) <= window
            )
            result = _add_to_queries(
                queries, gradients, log_total, delta, i, j, opened, valid, key, value, k_n, v_n,
                scaling, seed, dropout, num_tokens, result, D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
        else:
            alone = valid & (_is_open(columns, j, valid) == 0)
            opened = (computed[:, None] & alone[None, :]) & _on_diagonals(
                diagonals, num_diagonals, i, j
            )
            if tl.max(tl.max(opened.to(tl.int32), 1)) > 0:
                result = _add_to_queries(
                    queries, gradients, log_total, delta, i, j, opened, valid, key, value, k_n,
                    v_n, scaling, seed, dropout, num_tokens, result,
                    D, BLOCK_D, PRECISION, DROPOUT,
                )  # fmt: skip
    return result


@triton.jit
def query_gradient_kernel(
    query, key, value, gradient, log_totals, deltas, of_queries,
    rows, row_list, row_count, columns, column_list, column_count, diagonals, spans, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    num_heads, row_heads, column_heads, diagonal_heads,
    num_tokens, num_diagonals, window, list_tiles, scaling, dropout,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of the queries, own axis the queries; (B, H, N, D), contiguous."""
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    of_rows, of_columns = b * row_heads + h % row_heads, b * column_heads + h % column_heads
    rows += of_rows * num_tokens
    columns += of_columns * num_tokens
    diagonals += (b * diagonal_heads + h % diagonal_heads) * num_diagonals
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    listed, i, computed, written = _own_tile(
        rows, row_list + of_rows * num_tokens, tl.load(row_count + of_rows), start, end,
        num_tokens, list_tiles, BLOCK_Q,
    )  # fmt: skip
    if tl.max(written.to(tl.int32)) == 0:
        return
    queries = _tile(query + b * q_b + h * q_h, i, computed, q_n, D, BLOCK_D)
    gradients = _tile(gradient + b * g_b + h * g_h, i, computed, g_n, D, BLOCK_D)
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
            k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            True, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    else:
        result = _query_walk(
            queries, gradients, log_total, delta, i, computed, key, value,
            columns, column_list, in_list, diagonals, start, end,
            k_n, v_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            False, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    place = of_queries + bh * num_tokens * D
    _store(place, i, written, D, result * scaling, D, BLOCK_D)


@triton.jit
def _add_to_keys(
    keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, q_n, g_n, scaling,
    seed, dropout, num_tokens, of_keys, of_values,
    D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    queries = _tile(query, i, valid, q_n, D, BLOCK_D)
    gradients = _tile(gradient, i, valid, g_n, D, BLOCK_D)
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
    q_n, g_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
    LISTED: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """All queries of a tile of keys: gathered rows once, then what lies side by side."""
    of_keys = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    of_values = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    if not LISTED:
        for slot in range(0, in_list, BLOCK_Q):
            slots = slot + tl.arange(0, BLOCK_Q)
            valid = slots < in_list
            i = tl.load(row_list + slots, mask=valid, other=0)
            opened = (computed[None, :] & valid[:, None]) & (
                tl.abs(i[:, None] - j[None, :]) <= window
            )
            of_keys, of_values = _add_to_keys(
                keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, q_n, g_n,
                scaling, seed, dropout, num_tokens, of_keys, of_values,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
    first, last = _reach(
        j, computed, window if LISTED else num_diagonals - 1, start, end, num_tokens
    )
    for i0 in range(first, last, BLOCK_Q):
        i = i0 + tl.arange(0, BLOCK_Q)
        valid = i < last
        if LISTED:
            opened = (computed[None, :] & valid[:, None]) & (
                tl.abs(i[:, None] - j[None, :]) <= window
            )
            of_keys, of_values = _add_to_keys(
                keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, q_n, g_n,
                scaling, seed, dropout, num_tokens, of_keys, of_values,
                D, BLOCK_D, PRECISION, DROPOUT,
            )  # fmt: skip
        else:
            alone = valid & (_is_open(rows, i, valid) == 0)
            opened = (computed[None, :] & alone[:, None]) & _on_diagonals(
                diagonals, num_diagonals, i, j
            )
            if tl.max(tl.max(opened.to(tl.int32), 1)) > 0:
                of_keys, of_values = _add_to_keys(
                    keys, values, i, j, opened, valid, query, gradient, log_totals, deltas, q_n,
                    g_n, scaling, seed, dropout, num_tokens, of_keys, of_values,
                    D, BLOCK_D, PRECISION, DROPOUT,
                )  # fmt: skip
    return of_keys, of_values


@triton.jit
def key_gradient_kernel(
    query, key, value, gradient, log_totals, deltas, of_keys_out, of_values_out,
    rows, row_list, row_count, columns, column_list, column_count, diagonals, spans, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    num_heads, row_heads, column_heads, diagonal_heads,
    num_tokens, num_diagonals, window, list_tiles, scaling, dropout,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradients of keys and values, own axis the keys; (B, H, N, D), contiguous."""
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    of_rows, of_columns = b * row_heads + h % row_heads, b * column_heads + h % column_heads
    rows += of_rows * num_tokens
    columns += of_columns * num_tokens
    diagonals += (b * diagonal_heads + h % diagonal_heads) * num_diagonals
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    listed, j, computed, written = _own_tile(
        columns, column_list + of_columns * num_tokens, tl.load(column_count + of_columns),
        start, end, num_tokens, list_tiles, BLOCK_K,
    )  # fmt: skip
    if tl.max(written.to(tl.int32)) == 0:
        return
    keys = _tile(key + b * k_b + h * k_h, j, computed, k_n, D, BLOCK_D)
    values = _tile(value + b * v_b + h * v_h, j, computed, v_n, D, BLOCK_D)
    query += b * q_b + h * q_h
    gradient += b * g_b + h * g_h
    log_totals += bh * num_tokens
    deltas += bh * num_tokens
    row_list += of_rows * num_tokens
    in_list = tl.load(row_count + of_rows)
    seed = tl.load(seeds) + bh
    if listed:
        of_keys, of_values = _key_walk(
            keys, values, j, computed, query, gradient, log_totals, deltas,
            rows, row_list, in_list, diagonals, start, end,
            q_n, g_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            True, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    else:
        of_keys, of_values = _key_walk(
            keys, values, j, computed, query, gradient, log_totals, deltas,
            rows, row_list, in_list, diagonals, start, end,
            q_n, g_n, num_tokens, num_diagonals, window, scaling, seed, dropout,
            False, D, BLOCK_D, BLOCK_Q, BLOCK_K, PRECISION, DROPOUT,
        )  # fmt: skip
    place = bh * num_tokens * D
    _store(of_keys_out + place, j, written, D, of_keys * scaling, D, BLOCK_D)
    _store(of_values_out + place, j, written, D, of_values, D, BLOCK_D)


@triton.jit
def axis_gradient_kernel(
    query, key, value, gradient, highests, log_totals, deltas, of_gates,
    wanted_list, wanted_count, others, other_list, other_count, diagonals, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    num_heads, wanted_heads, other_heads, diagonal_heads,
    num_tokens, num_diagonals, longest_list, window, scaling, dropout,
    ROWS: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr, PRECISION: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of rows' gates, or of columns', that stand in a list.

    The sum over the cells that a gate alone decides, those that neither the other axis nor a
    diagonal opens, with the tokens of a second list: all, or a sample. The own axis is that of the
    gates, in tiles of BLOCK_Q, whichever it is.
    """
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    wanted, other_gates = b * wanted_heads + h % wanted_heads, b * other_heads + h % other_heads
    diagonals += (b * diagonal_heads + h % diagonal_heads) * num_diagonals
    others += other_gates * num_tokens
    seed = tl.load(seeds) + bh
    count = tl.load(wanted_count + wanted)
    slots = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    if tl.program_id(0) * BLOCK_Q >= count:
        return
    own = tl.load(wanted_list + wanted * num_tokens + slots, mask=slots < count, other=0)
    computed = slots < count
    query += b * q_b + h * q_h
    key += b * k_b + h * k_h
    value += b * v_b + h * v_h
    gradient += b * g_b + h * g_h
    highests += bh * num_tokens
    log_totals += bh * num_tokens
    deltas += bh * num_tokens
    result = tl.zeros([BLOCK_Q], tl.float32)
    in_list = tl.load(other_count + b)
    for slot in range(0, in_list, BLOCK_K):
        places = slot + tl.arange(0, BLOCK_K)
        valid = places < in_list
        other = tl.load(other_list + b * longest_list + places, mask=valid, other=0)
        undecided = (computed[:, None] & valid[None, :]) & (
            tl.abs(own[:, None] - other[None, :]) <= window
        )
        undecided = undecided & (_is_open(others, other, valid) == 0)[None, :]
        undecided = undecided & (_on_diagonals(diagonals, num_diagonals, own, other) == 0)
        # As (own, other), whichever of them are the queries.
        if ROWS:
            left = _tile(query, own, computed, q_n, D, BLOCK_D)
            right = _tile(key, other, valid, k_n, D, BLOCK_D)
            left_value = _tile(gradient, own, computed, g_n, D, BLOCK_D)
            right_value = _tile(value, other, valid, v_n, D, BLOCK_D)
            highest = tl.load(highests + own, mask=computed, other=0.0)[:, None]
            log_total = tl.load(log_totals + own, mask=computed, other=float("inf"))[:, None]
            delta = tl.load(deltas + own, mask=computed, other=0.0)[:, None]
        else:
            left = _tile(key, own, computed, k_n, D, BLOCK_D)
            right = _tile(query, other, valid, q_n, D, BLOCK_D)
            left_value = _tile(value, own, computed, v_n, D, BLOCK_D)
            right_value = _tile(gradient, other, valid, g_n, D, BLOCK_D)
            highest = tl.load(highests + other, mask=valid, other=0.0)[None, :]
            log_total = tl.load(log_totals + other, mask=valid, other=float("inf"))[None, :]
            delta = tl.load(deltas + other, mask=valid, other=0.0)[None, :]
        scores = tl.dot(left, tl.trans(right), input_precision=PRECISION) * scaling
        of_weights = tl.dot(left_value, tl.trans(right_value), input_precision=PRECISION)
        if DROPOUT:
            if ROWS:
                of_weights *= _kept(seed, dropout, num_tokens, own, other)
            else:
                of_weights *= tl.trans(_kept(seed, dropout, num_tokens, other, own))
        bounded = tl.minimum(scores - highest, MAX_CLOSED_SCORE)
        weights = tl.exp(bounded + (highest - log_total))
        result += tl.sum(tl.where(undecided, weights * (of_weights - delta), 0.0), 1)
    tl.store(of_gates + bh * num_tokens + own, result, mask=computed)


@triton.jit
def diagonal_gradient_kernel(
    query, key, value, gradient, highests, log_totals, deltas, of_gates,
    rows, columns, spans, seeds,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, g_b, g_h, g_n,
    num_heads, row_heads, column_heads, num_tokens, num_diagonals, window, scaling, dropout,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """The gradient of one distance's gate, open or closed: both of its diagonals, cell by cell."""
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
    for i0 in range(start, end, BLOCK):
        i = i0 + tl.arange(0, BLOCK)
        real = i < end
        queries = _tile(query, i, real, q_n, D, BLOCK_D).to(tl.float32)
        gradients = _tile(gradient, i, real, g_n, D, BLOCK_D).to(tl.float32)
        highest = tl.load(highests + at + i, mask=real, other=0.0)
        log_total = tl.load(log_totals + at + i, mask=real, other=float("inf"))
        delta = tl.load(deltas + at + i, mask=real, other=0.0)
        real = real & (_is_open(rows, i, real) == 0)
        for side in tl.static_range(2):
            j = i + distance if side == 0 else i - distance
            undecided = real & (j >= start) & (j < end)
            undecided = undecided & (_is_open(columns, j, undecided) == 0)
            if side == 1:
                undecided = undecided & (j != i)  # the main diagonal has one side
            keys = _tile(key, j, undecided, k_n, D, BLOCK_D).to(tl.float32)
            values = _tile(value, j, undecided, v_n, D, BLOCK_D).to(tl.float32)
            scores = tl.sum(queries * keys, 1) * scaling
            of_weights = tl.sum(gradients * values, 1)
            if DROPOUT:
                cell = i.to(tl.int64) * num_tokens + j
                of_weights *= tl.where(tl.rand(seed, cell) >= dropout, 1 / (1 - dropout), 0.0)
            bounded = tl.minimum(scores - highest, MAX_CLOSED_SCORE)
            weights = tl.exp(bounded + (highest - log_total))
            result += tl.where(undecided, weights * (of_weights - delta), 0.0)
    tl.store(of_gates + bh * num_diagonals + distance, tl.sum(result))
