"""Sparse attention as one graph for all lengths, for export: no loop or branch over the data.

What ``gathered`` does text by text is done here for a batch at once, with as many slots for
columns and for rows as the text (and head) with the most of them needs. How many that is follows
from the input while the graph runs, so nothing is cut off. The band of diagonals is cut into
blocks whose queries meet the keys of their own block and of its two neighbours. Single cells have
as many slots for every query as the one with the most needs. Memory is
O(N (columns + band + cells a query) + rows N), as in ``gathered``.

Shape suffixes: S slots, G blocks, C tokens of a block, W = 3C keys around it, X cells of a query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.masks import SparseMask

SMALLEST_BLOCK = 16


def exportable_attention(
    query_BHND: Tensor,
    key_BHND: Tensor,
    value_BHND: Tensor,
    mask: SparseMask,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, None]:
    """As ``dense_attention``, for inference. Rows of padding are 0.

    Raises:
        ValueError: if a gate of the mask needs a gradient, or dropout is asked for.
    """
    _check(mask, dropout)
    query_BHND = query_BHND * scaling  # first, as in ``dense``
    shape = (*query_BHND.shape[:2], mask.keep_BN.shape[-1])
    keep_B1N = mask.keep_BN.unsqueeze(1)
    nowhere_B1N = torch.zeros_like(keep_B1N)
    rows_BHN, columns_BHN = (
        (nowhere_B1N if gates is None else (gates > 0) & keep_B1N).expand(shape)
        for gates in (mask.rows_BHN, mask.columns_BHN)
    )
    output_BHND = _one_softmax(query_BHND, key_BHND, value_BHND, mask, columns_BHN)
    if mask.rows_BHN is not None:
        rows = _whole_rows(query_BHND, key_BHND, value_BHND, mask, rows_BHN)
        output_BHND = F.pad(output_BHND, (0, 0, 0, 1)).scatter(2, *rows)[:, :, :-1]
    return output_BHND * keep_B1N.unsqueeze(-1), None


def _check(mask: SparseMask, dropout: float) -> None:
    if mask.needs_gradient or dropout:
        raise ValueError(
            "executor 'exportable' is for inference: it has no dropout and gives no gradient to "
            "gates; use 'auto' in training"
        )


Part = tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]
"""Scores of a part's cells, (B, H, N, X); which are open; what their probabilities add up to."""


def _one_softmax(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, mask: SparseMask,
    columns_BHN: Tensor,
) -> Tensor:  # fmt: skip
    """Over open columns, the band and single cells, for every query; (B, H, N, D)."""
    diagonals_BHK = mask.diagonals_BHK
    if diagonals_BHK is None:
        diagonals_BHK = query_BHND.new_zeros(1, 1, 1)
    if mask.window is not None:
        diagonals_BHK = diagonals_BHK[..., : mask.window + 1]
    tokens = (query_BHND, key_BHND, value_BHND)
    parts = [_of_columns(*tokens, mask, columns_BHN)]
    parts.append(_of_band(*tokens, mask, columns_BHN, diagonals_BHK))
    if mask.edges_BE2 is not None:
        parts.append(_of_edges(*tokens, mask, columns_BHN, diagonals_BHK))
    scores, opened = (torch.cat(cells, -1) for cells in list(zip(*parts, strict=True))[:2])
    probabilities = _softmax(scores, opened).to(value_BHND.dtype)
    widths = [cells.shape[-1] for cells, _, _ in parts]
    sums = [
        combine(cells)
        for cells, (_, _, combine) in zip(probabilities.split(widths, -1), parts, strict=True)
    ]
    return sum(sums[1:], sums[0])


def _of_columns(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, mask: SparseMask,
    columns_BHN: Tensor,
) -> Part:  # fmt: skip
    column_BHS, is_column_BHS = _listed(columns_BHN)
    open_BHNS = is_column_BHS.unsqueeze(-2)
    if mask.window is not None:
        places_N = torch.arange(columns_BHN.shape[-1], device=column_BHS.device)
        open_BHNS = open_BHNS & _within(places_N[:, None] - column_BHS.unsqueeze(-2), mask.window)
    scores_BHNS = query_BHND @ _rows_of(key_BHND, column_BHS).mT
    values_BHSD = _rows_of(value_BHND, column_BHS)
    return scores_BHNS, open_BHNS.expand_as(scores_BHNS), lambda cells: cells @ values_BHSD


def _of_band(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, mask: SparseMask,
    columns_BHN: Tensor, diagonals_BHK: Tensor,
) -> Part:  # fmt: skip
    num_tokens = columns_BHN.shape[-1]
    size = max(SMALLEST_BLOCK, diagonals_BHK.shape[-1] - 1)
    cut = (_num_blocks(num_tokens, size, columns_BHN.device), size)
    scores_BHGCW = _blocks(query_BHND, *cut) @ _around(key_BHND, *cut).mT
    alone_BHN1 = (mask.keep_BN.unsqueeze(1) & ~columns_BHN).unsqueeze(-1)
    alone_BHGW = _around(alone_BHN1, *cut).squeeze(-1)
    places_C = torch.arange(size, device=columns_BHN.device)
    distance_CW = (places_C[:, None] + size - torch.arange(3 * size).to(places_C)).abs()
    gates = F.pad(diagonals_BHK, (0, 2 * size + 1 - diagonals_BHK.shape[-1]))[..., distance_CW] > 0
    open_BHGCW = alone_BHGW.unsqueeze(-2) & gates.unsqueeze(2)
    values_BHGWD = _around(value_BHND, *cut)
    return (
        _unblocked(scores_BHGCW, num_tokens),
        _unblocked(open_BHGCW, num_tokens),
        lambda cells: _unblocked(_blocks(cells, *cut) @ values_BHGWD, num_tokens),
    )


def _of_edges(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, mask: SparseMask,
    columns_BHN: Tensor, diagonals_BHK: Tensor,
) -> Part:  # fmt: skip
    """Those single cells that neither a column nor a diagonal opens as well."""
    batch, num_heads, num_tokens = columns_BHN.shape
    assert mask.edges_BE2 is not None
    key_BNX, is_cell_BNX = _slots(mask.edges_BE2.expand(batch, -1, -1), num_tokens)
    num_slots = key_BNX.shape[-1]
    places_N = torch.arange(num_tokens, device=key_BNX.device)
    distance_BNX = (places_N[:, None] - key_BNX).abs()
    if mask.window is not None:
        is_cell_BNX = is_cell_BNX & _within(distance_BNX, mask.window)
    keep_BNX = mask.keep_BN.gather(1, key_BNX.flatten(1)).unflatten(1, (num_tokens, num_slots))
    is_cell_BNX = is_cell_BNX & keep_BNX  # padding may lie between tokens

    def each_head(index_BNX: Tensor) -> Tensor:
        return index_BNX.flatten(1).unsqueeze(1).expand(-1, num_heads, -1)

    def looked_up(gates_BHK: Tensor, index_BNX: Tensor) -> Tensor:
        found_BHX = gates_BHK.expand(batch, num_heads, -1).gather(2, each_head(index_BNX))
        return found_BHX.unflatten(2, (num_tokens, num_slots)) > 0

    last = diagonals_BHK.shape[-1] - 1
    on_diagonal = looked_up(diagonals_BHK, distance_BNX.clamp_max(last))
    on_diagonal = on_diagonal & (distance_BNX <= last).unsqueeze(1)
    open_BHNX = is_cell_BNX.unsqueeze(1) & ~on_diagonal & ~looked_up(columns_BHN.int(), key_BNX)
    keys_BHNXD, values_BHNXD = (
        _rows_of(tokens, each_head(key_BNX)).unflatten(2, (num_tokens, num_slots))
        for tokens in (key_BHND, value_BHND)
    )
    scores_BHNX = (keys_BHNXD @ query_BHND.unsqueeze(-1)).squeeze(-1)
    return scores_BHNX, open_BHNX, lambda cells: (cells.unsqueeze(-2) @ values_BHNXD).squeeze(-2)


def _slots(edges_BE2: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """The keys of each query's single cells, in as many slots as the most need; which are used."""
    batch = edges_BE2.shape[0]  # len() would fix it for good
    row_BE, key_BE = edges_BE2.unbind(-1)
    row_BE = torch.where(row_BE < 0, num_tokens, row_BE)  # a row of its own, for no cells
    row_BE, order_BE = row_BE.sort(-1)
    key_BE = key_BE.gather(-1, order_BE)
    counts_BN = row_BE.new_zeros(batch, num_tokens + 1)
    counts_BN = counts_BN.scatter_add(1, row_BE, torch.ones_like(row_BE))
    num_slots = cast(int, counts_BN[:, :-1].max().clamp_min(1).item())
    torch._check(num_slots >= 1)
    first_BN = counts_BN.cumsum(-1) - counts_BN
    slot_BE = torch.arange(row_BE.shape[1], device=row_BE.device) - first_BN.gather(-1, row_BE)
    slot_BE = torch.where(row_BE == num_tokens, 0, slot_BE)
    keys_BX = torch.full((batch, (num_tokens + 1) * num_slots), -1, device=row_BE.device)
    keys_BX = keys_BX.scatter(1, row_BE * num_slots + slot_BE, key_BE)
    keys_BNX = keys_BX.unflatten(1, (num_tokens + 1, num_slots))[:, :-1]
    return keys_BNX.clamp_min(0), keys_BNX >= 0


def _whole_rows(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, mask: SparseMask, rows_BHN: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Open rows: where they go (empty slots behind the last), and what goes there."""
    num_tokens = mask.keep_BN.shape[-1]
    row_BHS, is_row_BHS = _listed(rows_BHN)
    scores_BHSN = _rows_of(query_BHND, row_BHS) @ key_BHND.mT
    open_BHSN = mask.keep_BN[:, None, None, :]
    if mask.window is not None:
        places_N = torch.arange(num_tokens, device=row_BHS.device)
        open_BHSN = open_BHSN & _within(row_BHS.unsqueeze(-1) - places_N, mask.window)
    probabilities = _softmax(scores_BHSN, open_BHSN).to(value_BHND.dtype)
    output_BHSD = probabilities @ value_BHND
    places_BHS1 = torch.where(is_row_BHS, row_BHS, num_tokens).unsqueeze(-1)
    return places_BHS1.expand(output_BHSD.shape), output_BHSD


def _listed(open_BHN: Tensor) -> tuple[Tensor, Tensor]:
    """The open tokens' places in as many slots as the most need (one at least); which are used."""
    num_tokens = open_BHN.shape[-1]
    counts_BH1 = open_BHN.sum(-1, keepdim=True)
    num_slots = cast(int, counts_BH1.max().clamp_min(1).item())  # int() would fix it for good
    torch._check(num_slots >= 1)
    torch._check(num_slots <= num_tokens)
    slot_BHN = torch.where(open_BHN, open_BHN.cumsum(-1) - 1, num_tokens)
    places_BHN = torch.arange(num_tokens, device=open_BHN.device).expand(open_BHN.shape)
    listed = torch.zeros_like(F.pad(places_BHN, (0, 1))).scatter(-1, slot_BHN, places_BHN)
    slots_S = torch.arange(num_slots, device=open_BHN.device)
    return listed[..., :num_slots], slots_S < counts_BH1


def _rows_of(tokens_BHND: Tensor, places_BHS: Tensor) -> Tensor:
    width = tokens_BHND.shape[-1]
    return tokens_BHND.gather(2, places_BHS.unsqueeze(-1).expand(-1, -1, -1, width))


def _within(distance: Tensor, window: int) -> Tensor:
    return distance.abs() <= window


def _num_blocks(num_tokens: int, size: int, device: torch.device) -> int:
    """By way of a tensor: an exported graph then need not know how lengths and blocks compare."""
    last = torch.arange(num_tokens, device=device)[-1]
    num_blocks = cast(int, (last // size + 1).item())
    torch._check(num_blocks >= 1)
    torch._check(num_blocks * size >= num_tokens)
    return num_blocks


def _blocks(tokens_BHND: Tensor, num_blocks: int, size: int) -> Tensor:
    """Blocks of ``size`` tokens, the last one filled up with zeros: (B, H, G, C, D)."""
    padded = F.pad(tokens_BHND, (0, 0, 0, num_blocks * size - tokens_BHND.shape[2]))
    return padded.reshape(*tokens_BHND.shape[:2], num_blocks, size, tokens_BHND.shape[-1])


def _around(tokens_BHND: Tensor, num_blocks: int, size: int) -> Tensor:
    """For each block the tokens of it and of both of its neighbours: (B, H, G, 3C, D)."""
    blocks = F.pad(_blocks(tokens_BHND, num_blocks, size), (0, 0, 0, 0, 1, 1))
    return torch.cat([blocks[:, :, :-2], blocks[:, :, 1:-1], blocks[:, :, 2:]], dim=3)


def _unblocked(blocks_BHGCX: Tensor, num_tokens: int) -> Tensor:
    return blocks_BHGCX.flatten(2, 3)[:, :, :num_tokens]


def _softmax(scores: Tensor, opened: Tensor) -> Tensor:
    """Probabilities of the open cells, in float32; all 0 in a row without any."""
    scores = scores.float().masked_fill(~opened, torch.finfo(torch.float32).min)
    return scores.softmax(-1) * opened
