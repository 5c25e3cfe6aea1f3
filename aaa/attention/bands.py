"""How open diagonals become bands: runs of them that blocks of queries meet in one product.

Shape suffixes: K distances, W diagonals of a band.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from aaa.attention.parts import Band
from aaa.attention.slots import SLOT_CELLS

# What it costs a text to have any diagonals cell by cell, likewise.
ANY_SCATTERED = 15_000


def bands(diagonals_K: Tensor, num_tokens: int) -> tuple[Band, ...]:
    """The bands that open these diagonals, entry k those of distance k, and no other cells."""
    return _kept_bands(tuple(diagonals_K.tolist()), num_tokens, diagonals_K.device, False)[0]


def bands_and_scattered(
    diagonals_K: Tensor, num_tokens: int
) -> tuple[tuple[Band, ...], tuple[int, ...]]:
    """As ``bands``, but for the diagonals, as key less query, that cost less cell by cell."""
    return _kept_bands(tuple(diagonals_K.tolist()), num_tokens, diagonals_K.device, True)


@lru_cache(maxsize=256)  # layers share them; to lay one out takes a short text a tenth
def _kept_bands(
    gates_K: tuple[bool, ...], num_tokens: int, device: torch.device, scatter: bool
) -> tuple[tuple[Band, ...], tuple[int, ...]]:
    runs = _runs(gates_K)
    scattered: tuple[int, ...] = ()
    if scatter:
        runs, scattered = _scattered(runs, num_tokens)
    block = _block(runs)
    margin = int(runs[-1][-1]) if runs else 0  # the furthest diagonal, on either side
    laid_out = []
    for run in runs:
        open_W = torch.zeros(_span(run), dtype=torch.bool, device="cpu")
        open_W[run - run[0]] = True
        laid_out.append(Band(int(run[0]), open_W.to(device), num_tokens, block, margin))
    return tuple(laid_out), scattered


@lru_cache(maxsize=256)  # layers and batches share them, and a short text's attention costs less
def cells_a_query(gates_K: tuple[float, ...], num_tokens: int) -> float:
    """About what these diagonals cost for each query, in cells of a product.

    Far more than are open where distances are scattered.
    """
    runs, scattered = _scattered(_runs(gates_K), num_tokens)
    of_bands = sum(_band_cells(run, _block(runs)) for run in runs)
    return of_bands + SLOT_CELLS * len(scattered) + bool(scattered) * ANY_SCATTERED / num_tokens


def block_for(num_diagonals: int) -> int:
    """How many queries in a row share the keys around them (measured on CPUs)."""
    return 16 if num_diagonals < 100 else 32


def _runs(gates_K: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Runs of diagonals, as key less query, with gaps that cost less than another band would."""
    distances = torch.tensor(gates_K, device="cpu").nonzero().squeeze(-1)
    offsets = torch.cat([-distances.flip(0), distances[distances > 0]])
    if not len(offsets):
        return ()
    cuts = ((offsets[1:] - offsets[:-1]) > block_for(len(offsets))).nonzero().squeeze(-1) + 1
    return offsets.tensor_split(cuts.tolist())


def _scattered(
    runs: tuple[Tensor, ...], num_tokens: int
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The runs that are to be bands, and the diagonals of the others."""
    block = block_for(sum(len(run) for run in runs))
    saved = [_band_cells(run, block) - SLOT_CELLS * len(run) for run in runs]
    if sum(cells for cells in saved if cells > 0) * num_tokens <= ANY_SCATTERED:
        return runs, ()
    apart = [run for run, cells in zip(runs, saved, strict=True) if cells > 0]
    together = tuple(run for run, cells in zip(runs, saved, strict=True) if cells <= 0)
    return together, tuple(torch.cat(apart).tolist())


def _block(runs: tuple[Tensor, ...]) -> int:
    return max((block_for(_span(run)) for run in runs), default=1)


def _band_cells(run: Tensor, block: int) -> int:
    return block - 1 + _span(run)


def _span(run: Tensor) -> int:
    return int(run[-1] - run[0]) + 1
