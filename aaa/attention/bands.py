"""How open diagonals become bands: runs of them that blocks of queries meet in one product.

Shape suffixes: K distances, W diagonals of a band.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from aaa.attention.parts import Band


def bands(diagonals_K: Tensor, num_tokens: int) -> tuple[Band, ...]:
    """The bands that open these diagonals, entry k those of distance k, and no other cells."""
    return _kept_bands(tuple(diagonals_K.tolist()), num_tokens, diagonals_K.device)


@lru_cache(maxsize=256)  # layers share them; to lay one out takes a short text a tenth
def _kept_bands(
    gates_K: tuple[bool, ...], num_tokens: int, device: torch.device
) -> tuple[Band, ...]:
    runs, block = _runs(torch.tensor(gates_K, device="cpu"))
    margin = int(runs[-1][-1]) if runs else 0  # the furthest diagonal, on either side
    laid_out = []
    for run in runs:
        open_W = torch.zeros(_span(run), dtype=torch.bool, device="cpu")
        open_W[run - run[0]] = True
        laid_out.append(Band(int(run[0]), open_W.to(device), num_tokens, block, margin))
    return tuple(laid_out)


@lru_cache(maxsize=256)  # layers and batches share them, and a short text's attention costs less
def cells_a_query(gates_K: tuple[float, ...]) -> int:
    """About what the bands of these diagonals cost for each query, in cells of a product.

    Far more than are open where distances are scattered: a diagonal of its own costs a block.
    """
    runs, block = _runs(torch.tensor(gates_K, device="cpu") > 0)
    return sum(block - 1 + _span(run) for run in runs)


def block_for(num_diagonals: int) -> int:
    """How many queries in a row share the keys around them (measured on CPUs)."""
    return 16 if num_diagonals < 100 else 32


def _runs(diagonals_K: Tensor) -> tuple[tuple[Tensor, ...], int]:
    """Runs of diagonals, as key less query, with gaps that cost less than another band would.

    And how many queries are a block of them.
    """
    distances = diagonals_K.nonzero().squeeze(-1)
    offsets = torch.cat([-distances.flip(0), distances[distances > 0]])
    if not len(offsets):
        return (), 1
    longest = block_for(len(offsets))
    cuts = ((offsets[1:] - offsets[:-1]) > longest).nonzero().squeeze(-1) + 1
    runs = offsets.tensor_split(cuts.tolist())
    return runs, max(block_for(_span(run)) for run in runs)


def _span(run: Tensor) -> int:
    return int(run[-1] - run[0]) + 1
