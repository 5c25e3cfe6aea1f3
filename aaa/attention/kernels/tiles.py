"""What all kernels are built of: tiles of tokens, and which of their cells are open."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_tile(base, index, valid, stride, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows of a matrix by index, (BLOCK, BLOCK_D); 0 where not valid."""
    d = tl.arange(0, BLOCK_D)
    cells = base + index[:, None].to(tl.int64) * stride + d[None, :]
    return tl.load(cells, mask=valid[:, None] & (d[None, :] < D), other=0.0)


@triton.jit
def store_tile(base, index, valid, stride, tile, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Writes what ``load_tile`` reads, where valid."""
    d = tl.arange(0, BLOCK_D)
    cells = base + index[:, None].to(tl.int64) * stride + d[None, :]
    tl.store(cells, tile.to(base.dtype.element_ty), mask=valid[:, None] & (d[None, :] < D))


@triton.jit
def is_open(gates, index, valid):
    """Which of the valid tokens' gates are open."""
    return tl.load(gates + index, mask=valid, other=0) != 0


@triton.jit
def on_diagonals(diagonals, num_diagonals, own, other):
    """Which cells of a tile lie on an open diagonal."""
    distance = tl.abs(own[:, None] - other[None, :])
    return tl.load(diagonals + distance, mask=distance < num_diagonals, other=0) != 0


@triton.jit
def dropout_factor(seed, dropout, num_tokens, i, j):
    """The factor of each probability under dropout, the same whichever kernel asks."""
    cell = i[:, None].to(tl.int64) * num_tokens + j[None, :]
    return tl.where(tl.rand(seed, cell) >= dropout, 1 / (1 - dropout), 0.0)


@triton.jit
def own_tile(
    gates, tokens, count, start, end, num_tokens, list_tiles, BLOCK: tl.constexpr
):  # fmt: skip
    """What a program is for: whether it is listed, its tokens, those it computes and writes."""
    listed = tl.program_id(0) < list_tiles
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_list = places < tl.where(listed, count, 0)
    neighbours = places - list_tiles * BLOCK
    on_map = (neighbours >= 0) & (neighbours < num_tokens)
    written = in_list | (on_map & (is_open(gates, neighbours, on_map) == 0))
    index = tl.where(in_list, tl.load(tokens + places, mask=in_list, other=0), neighbours)
    return listed, index, written & (index >= start) & (index < end), written


@triton.jit
def listed_tokens(tokens, first, count, BLOCK: tl.constexpr):
    """A tile of a list from its ``first`` place on, and which of it are there."""
    places = first + tl.arange(0, BLOCK)
    valid = places < count
    return tl.load(tokens + places, mask=valid, other=0), valid


@triton.jit
def reachable(index, computed, reach, start, end, num_tokens):
    """The part of the span that lies within reach of some of the tokens; empty for none."""
    first = tl.min(tl.where(computed, index, num_tokens))
    last = tl.max(tl.where(computed, index, -num_tokens))
    return tl.maximum(start, first - reach), tl.minimum(end, last + reach + 1)


@triton.jit
def crossing(i, j, i_valid, j_valid, window):
    """The cells of valid queries and valid keys, no further apart than the window."""
    return (i_valid[:, None] & j_valid[None, :]) & (tl.abs(i[:, None] - j[None, :]) <= window)
