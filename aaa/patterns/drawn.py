"""Cells drawn at random: each by its numbers alone, so the same whenever it is asked for.

Shape suffixes: E edges, P pairs of tokens.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

TILE = 128  # Hugging Face's default max_seq_length, and SparseBERT's map
KEPT_BYTES = 2**27  # of all drawings: at 2,048 tokens and a density of 0.2 one layer's takes 25 MB

_drawings: OrderedDict[tuple[Callable[..., Tensor], tuple[int, ...]], Tensor] = OrderedDict()


def _kept(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keeps what was drawn while there is room; what was used longest ago makes way."""

    @functools.wraps(draw)
    def keeping(*numbers: int) -> Tensor:
        key = (draw, numbers)
        drawn = _drawings.pop(key, None)  # which another thread may be doing too
        if drawn is None:
            drawn = draw(*numbers)
        if type(drawn) is Tensor and drawn.nbytes <= KEPT_BYTES:  # not what a tracer stands in for
            _drawings[key] = drawn
            while sum(kept.nbytes for kept in list(_drawings.values())) > KEPT_BYTES:
                _drawings.popitem(last=False)
        return drawn

    return keeping


def _generator(*numbers: int) -> torch.Generator:
    """A generator whose stream depends on every one of the numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(mixed)


@_kept
def tiled_edges(num_tokens: int, per_row: int, seed: int, layer: int) -> Tensor:
    """``per_row`` cells in each row of each 128 x 128 tile, cropped to num_tokens; (E, 2)."""
    tiles = range(-(-num_tokens // TILE))
    edges = []
    for tile_row in tiles:
        for tile_column in tiles:
            scores = torch.rand(
                TILE, TILE, generator=_generator(seed, layer, tile_row, tile_column)
            )
            columns = scores.topk(per_row, dim=-1).indices + tile_column * TILE
            rows = torch.arange(TILE).unsqueeze(-1).expand_as(columns) + tile_row * TILE
            edges.append(torch.stack([rows, columns], dim=-1).view(-1, 2))
    edges_E2 = torch.cat(edges)
    return edges_E2[(edges_E2 < num_tokens).all(-1)]


@_kept
def uniform_edges(length: int, count: int, seed: int, layer: int) -> Tensor:
    """``count`` different cells (at most all) of a length x length map; (E, 2)."""
    cells = torch.randperm(length**2, generator=_generator(seed, layer, length))[:count]
    return torch.stack([cells // max(length, 1), cells % max(length, 1)], dim=-1)


@_kept
def uniform_pairs(length: int, count: int, seed: int, layer: int) -> Tensor:
    """``count`` different pairs of a length x length map, each both ways round; (E, 2)."""
    pairs_2P = torch.triu_indices(length, length, 1)
    drawn = torch.randperm(pairs_2P.shape[-1], generator=_generator(seed, layer, length))[:count]
    pairs_P2 = pairs_2P[:, drawn].T
    return torch.cat([pairs_P2, pairs_P2.flip(-1)])
