"""What all kernels are built of: tiles of tokens, and which of their cells are open."""

from __future__ import annotations

import triton
import triton.language as tl

# Parts of listed tokens are left for as many as a text has, divided by this.
ROOM = tl.constexpr(4)


@triton.jit
def text_and_head(num_heads, num_tokens, D: tl.constexpr):
    """Which text and head a program serves, and where they begin among queries or keys."""
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    return bh, b, h, (b * num_tokens * num_heads + h) * D


@triton.jit
def list_of(axis, gates, tokens, counts, b, h, num_heads, list_heads, num_tokens):
    """The gates of rows (axis 0) or columns (1), the list of the open ones, and its length."""
    num_lists = tl.num_programs(1) // num_heads * list_heads
    own = axis * num_lists + b * list_heads + h % list_heads
    return gates + own * num_tokens, tokens + own * num_tokens, tl.load(counts + own)


@triton.jit
def span_and_lists(gates, lists, counts, spans, b, h, num_heads, list_heads, num_tokens):
    """A text's first token and the one after its last; gates, list and its length of both axes."""
    rows, row_list, num_rows = list_of(
        0, gates, lists, counts, b, h, num_heads, list_heads, num_tokens
    )
    columns, column_list, num_columns = list_of(
        1, gates, lists, counts, b, h, num_heads, list_heads, num_tokens
    )
    start, end = tl.load(spans + 2 * b), tl.load(spans + 2 * b + 1)
    return start, end, rows, row_list, num_rows, columns, column_list, num_columns


@triton.jit
def diagonals_of(
    diagonals, b, h, diagonal_texts, diagonal_heads, num_diagonals, NARROW: tl.constexpr
):  # fmt: skip
    """The gates of a text's and head's distances; a few of them as the bits of a number too."""
    own = b % diagonal_texts * diagonal_heads + h % diagonal_heads
    diagonals += own * num_diagonals
    bits = 0
    if NARROW:
        d = tl.arange(0, 32)
        opened = tl.load(diagonals + d, mask=d < num_diagonals, other=0) > 0
        bits = tl.sum(opened.to(tl.int32) << d, 0)
    return diagonals, bits


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
def on_diagonals(diagonals, bits, num_diagonals, own, other, NARROW: tl.constexpr):
    """Which cells of a tile lie on an open diagonal."""
    distance = tl.abs(own[:, None] - other[None, :])
    if NARROW:
        opened = ((bits >> tl.minimum(distance, 31)) & 1) != 0
    else:
        opened = tl.load(diagonals + distance, mask=distance < num_diagonals, other=0) > 0
    return opened


@triton.jit
def seed_of(seeds, bh, DROPOUT: tl.constexpr):
    """Of a text's and head's dropout; there is none to load without."""
    seed = bh
    if DROPOUT:
        seed += tl.load(seeds)
    return seed


@triton.jit
def dropout_factor(seed, dropout, num_tokens, i, j):
    """The factor of each probability under dropout, the same whichever kernel asks."""
    cell = i[:, None].to(tl.int64) * num_tokens + j[None, :]
    return tl.where(tl.rand(seed, cell) >= dropout, 1 / (1 - dropout), 0.0)


@triton.jit
def splits_of(count, num_tokens, most_splits):
    """Among how many programs each walk of a list's tile is divided: few where the list is long.

    So many times the list's tokens are no more than there is room for, unless it is not divided.
    """
    room = num_tokens // ROOM
    return tl.maximum(1, tl.minimum(most_splits, room // tl.maximum(count, 1)))


@triton.jit
def parts_from(parts, begin, width, num_tokens):
    """Of the parts, where those of this text and head begin that are so many numbers wide.

    ``begin`` numbers of each listed token stand before them.
    """
    bh = tl.program_id(1).to(tl.int64)
    return parts + (begin * tl.num_programs(1) + bh * width) * (num_tokens // ROOM)


@triton.jit
def share_of(first, last, split, splits, BLOCK: tl.constexpr):
    """One program's share of a range, whole tiles of it."""
    size = tl.cdiv(tl.maximum(last - first, 0), splits * BLOCK) * BLOCK
    return first + split * size, tl.minimum(last, first + (split + 1) * size)


@triton.jit
def own_tile(
    gates, tokens, count, start, end, num_tokens, list_programs, most_splits, BLOCK: tl.constexpr
):  # fmt: skip
    """What a program is for.

    Returns:
        Whether it is listed; its tokens, which of them it computes, and which it writes; of how
        many programs for this tile it is which; and, of those, where what it finds is to be left.
    """
    program = tl.program_id(0)
    listed = program < list_programs
    splits = tl.where(listed, splits_of(count, num_tokens, most_splits), 1)
    split = program % splits
    places = program // splits * BLOCK + tl.arange(0, BLOCK)
    in_list = places < tl.where(listed, count, 0)
    neighbours = (program - list_programs) * BLOCK + tl.arange(0, BLOCK)
    on_map = (neighbours >= 0) & (neighbours < num_tokens)
    written = in_list | (on_map & (is_open(gates, neighbours, on_map) == 0))
    index = tl.where(in_list, tl.load(tokens + places, mask=in_list, other=0), neighbours)
    computed = written & (index >= start) & (index < end)
    return listed, index, computed, written, splits, split, split * count + places


@triton.jit
def open_walk(
    listed, index, computed, count, window, split, splits, start, end, num_tokens,
    WINDOWED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The first tokens that a tile meets, all of whose cells are open: where from, and how many.

    Of a listed tile its share of the text, as far as the window reaches; else the other list.
    """
    first, last = start, end
    if WINDOWED:
        nearest = tl.min(tl.where(computed, index, num_tokens))
        furthest = tl.max(tl.where(computed, index, -num_tokens))
        first, last = tl.maximum(start, nearest - window), tl.minimum(end, furthest + window + 1)
    first, last = share_of(first, last, split, splits, BLOCK)
    return first, tl.where(listed, tl.maximum(last - first, 0), count)


@triton.jit
def open_tokens(listed, tokens, first, slot, count, BLOCK: tl.constexpr):
    """A tile of them from a ``slot`` on, and which of it are there."""
    places = slot + tl.arange(0, BLOCK)
    valid = places < count
    in_list = tl.load(tokens + places, mask=places < tl.where(listed, 0, count), other=0)
    return tl.where(listed, first + places, in_list), valid


@triton.jit
def band_walk(listed, list_programs, reach, start, end, BLOCK: tl.constexpr):
    """The part of the span that the diagonals of a plain tile cross; empty for a listed one."""
    own = (tl.program_id(0) - list_programs) * BLOCK
    first, last = tl.maximum(start, own - reach), tl.minimum(end, own + BLOCK + reach)
    return first, tl.where(listed, first, last)


@triton.jit
def listed_tokens(tokens, first, count, BLOCK: tl.constexpr):
    """A tile of a list from its ``first`` place on, and which of it are there."""
    places = first + tl.arange(0, BLOCK)
    valid = places < count
    return tl.load(tokens + places, mask=valid, other=0), valid


@triton.jit
def crossing(i, j, i_valid, j_valid, window, WINDOWED: tl.constexpr):
    """The cells of valid queries and valid keys, within the window if there is one."""
    opened = i_valid[:, None] & j_valid[None, :]
    if WINDOWED:
        opened = opened & (tl.abs(i[:, None] - j[None, :]) <= window)
    return opened
