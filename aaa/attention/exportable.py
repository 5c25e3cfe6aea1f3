"""Sparse attention as one graph for all lengths, for export: no loop or branch over the data.

What ``gathered`` does text by text is done here for a batch at once, with as many slots for
columns and for rows as the text (and head) with the most of them needs. How many that is follows
from the input while the graph runs, so nothing is cut off. The band of diagonals is cut into
blocks whose queries meet the keys of their own block and of its two neighbours. Memory is
O(N (columns + band) + rows N), as in ``gathered``.

Shape suffixes: S slots, G blocks, C tokens of a block, W = 3C keys around it.
"""

from __future__ import annotations

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
        ValueError: if the mask has edges, a gate of it needs a gradient, or dropout is asked for.
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
    output_BHND = _columns_and_band(query_BHND, key_BHND, value_BHND, mask, columns_BHN)
    if mask.rows_BHN is not None:
        rows = _whole_rows(query_BHND, key_BHND, value_BHND, mask, rows_BHN)
        output_BHND = F.pad(output_BHND, (0, 0, 0, 1)).scatter(2, *rows)[:, :, :-1]
    return output_BHND * keep_B1N.unsqueeze(-1), None


def _check(mask: SparseMask, dropout: float) -> None:
    if mask.edges_BE2 is not None:
        raise ValueError(
            "executor 'exportable' serves rows, columns and diagonals, and this mask has single "
            "cells too, as Random, Syntax, Lexical and patterns at a density open them"
        )
    if mask.needs_gradient or dropout:
        raise ValueError(
            "executor 'exportable' is for inference: it has no dropout and gives no gradient to "
            "gates; use 'auto' in training"
        )


def _columns_and_band(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, mask: SparseMask,
    columns_BHN: Tensor,
) -> Tensor:  # fmt: skip
    """One softmax over open columns and the band, for every query; (B, H, N, D)."""
    num_tokens = mask.keep_BN.shape[-1]
    if mask.diagonals_BHK is None:
        diagonals_BHK = query_BHND.new_zeros(1, 1, 1)
    else:
        diagonals_BHK = mask.diagonals_BHK
    if mask.window is not None:
        diagonals_BHK = diagonals_BHK[..., : mask.window + 1]
    size = max(SMALLEST_BLOCK, diagonals_BHK.shape[-1] - 1)

    column_BHS, is_column_BHS = _listed(columns_BHN)
    open_BHNS = is_column_BHS.unsqueeze(-2)
    if mask.window is not None:
        places_N = torch.arange(num_tokens, device=column_BHS.device)
        open_BHNS = open_BHNS & _within(places_N[:, None] - column_BHS.unsqueeze(-2), mask.window)
    column_scores_BHNS = query_BHND @ _rows_of(key_BHND, column_BHS).mT

    cut = (_num_blocks(num_tokens, size, column_BHS.device), size)
    band_scores_BHGCW = _blocks(query_BHND, *cut) @ _around(key_BHND, *cut).mT
    alone_BHN1 = (mask.keep_BN.unsqueeze(1) & ~columns_BHN).unsqueeze(-1)
    alone_BHGW = _around(alone_BHN1, *cut).squeeze(-1)
    places_C = torch.arange(size, device=column_BHS.device)
    distance_CW = (places_C[:, None] + size - torch.arange(3 * size).to(places_C)).abs()
    gates = F.pad(diagonals_BHK, (0, 2 * size + 1 - diagonals_BHK.shape[-1]))[..., distance_CW] > 0
    open_BHGCW = alone_BHGW.unsqueeze(-2) & gates.unsqueeze(2)

    band = (_unblocked(band_scores_BHGCW, num_tokens), _unblocked(open_BHGCW, num_tokens))
    scores = torch.cat([column_scores_BHNS, band[0]], -1)
    opened = torch.cat([open_BHNS.expand_as(column_scores_BHNS), band[1]], -1)
    probabilities = _softmax(scores, opened).to(value_BHND.dtype)
    of_columns, of_band = probabilities.split([column_BHS.shape[-1], 3 * size], -1)
    from_band_BHGCD = _blocks(of_band, *cut) @ _around(value_BHND, *cut)
    from_columns_BHND = of_columns @ _rows_of(value_BHND, column_BHS)
    return from_columns_BHND + _unblocked(from_band_BHGCD, num_tokens)


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
