"""How open diagonals become bands: runs of them that blocks of queries meet in one product.

Shape suffixes: K distances, W diagonals of a band.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from aaa.attention.parts import Band, Part


def open_offsets(diagonals_K: Tensor) -> Tensor:
    """The open diagonals as key less query, ascending; entry k of the gates is distance k."""
    distances = diagonals_K.nonzero().squeeze(-1)
    return torch.cat([-distances.flip(0), distances[distances > 0]])


def bands(offsets: Tensor, num_tokens: int) -> list[Part]:
    """The bands that open these diagonals, and no other cells."""
    runs, block = _runs(offsets)
    parts: list[Part] = []
    for run in runs:
        open_W = torch.zeros(_span(run), dtype=torch.bool, device=run.device)
        open_W[run - run[0]] = True
        parts.append(Band(int(run[0]), open_W, num_tokens, block))
    return parts


@lru_cache(maxsize=256)  # layers and batches share them, and a short text's attention costs less
def cells_a_query(gates_K: tuple[float, ...]) -> int:
    """About what the bands of these diagonals cost for each query, in cells of a product.

    Far more than are open where distances are scattered: a diagonal of its own costs a block. A
    band that is narrower than its block is taken out of the product, which costs as much again.
    """
    runs, block = _runs(open_offsets(torch.tensor(gates_K, device="cpu") > 0))
    spans = [_span(run) for run in runs]
    return sum((block - 1 + span) * (2 if span < block else 1) for span in spans)


def block_for(num_diagonals: int) -> int:
    """How many queries in a row share the keys around them (measured on CPUs)."""
    if num_diagonals < 64:
        return 32
    return 64 if num_diagonals < 512 else 128


def _runs(offsets: Tensor) -> tuple[tuple[Tensor, ...], int]:
    """Runs of diagonals, with gaps that cost less than another band, and their block."""
    if not len(offsets):
        return (), 1
    longest = block_for(len(offsets))
    cuts = ((offsets[1:] - offsets[:-1]) > longest).nonzero().squeeze(-1) + 1
    runs = offsets.tensor_split(cuts.tolist())
    return runs, max(block_for(_span(run)) for run in runs)


def _span(run: Tensor) -> int:
    return int(run[-1] - run[0]) + 1
