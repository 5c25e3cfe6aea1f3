"""Patterns and attention cell by cell, written from the paper's text and not from the code.

A map is a NumPy array over one text's own tokens, (N, N), 1 for open cells. ``padded`` puts the
maps of a batch where padding leaves them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from aaa.patterns import LayerInput, LayerSite, Pattern


def keep_of(lengths: Sequence[int], left: Sequence[bool] | bool = False, extra: int = 0) -> Tensor:
    """Which tokens are real, (B, N): texts of these lengths, padded on the right or the left."""
    num_tokens = max([*lengths, 1]) + extra
    sides = [left] * len(lengths) if isinstance(left, bool) else left
    keep = np.zeros((len(lengths), num_tokens), dtype=bool)
    for row, length, on_the_left in zip(keep, lengths, sides, strict=True):
        row[num_tokens - length if on_the_left else 0 :][:length] = True
    return torch.from_numpy(keep)


def padded(maps: Sequence[np.ndarray], keep_BN: Tensor) -> np.ndarray:
    """Each text's own map within the padded batch, (B, N, N)."""
    batch, num_tokens = keep_BN.shape
    result = np.zeros((batch, num_tokens, num_tokens))
    for own, target, keep in zip(maps, result, keep_BN.numpy(), strict=True):
        target[np.ix_(keep, keep)] = own
    return result


def cells_where(length: int, is_open: Callable[[int, int], bool]) -> np.ndarray:
    return np.array(
        [[float(is_open(i, j)) for j in range(length)] for i in range(length)]
    ).reshape(length, length)


def local(length: int, size: int) -> np.ndarray:
    """Section 2.2: a diagonal pattern with the offsets 0, 1, ..., size (Eq. 6)."""
    offsets = set(range(size + 1))
    return cells_where(length, lambda i, j: abs(i - j) in offsets)


def axis(length: int, rows: Collection[int], columns: Collection[int]) -> np.ndarray:
    """Eq. 7."""
    return cells_where(length, lambda i, j: i in rows or j in columns)


def global_(length: int, size: int) -> np.ndarray:
    """Section 2.2: an axis pattern whose rows and columns are the first ones."""
    return axis(length, range(size), range(size))


def union(*maps: np.ndarray) -> np.ndarray:
    """The OR of Eq. 8."""
    result = maps[0] != 0
    for other in maps[1:]:
        result = result | (other != 0)
    return result.astype(float)


def rho(maps: Sequence[np.ndarray]) -> float:
    """Eq. 9 for one layer with one head."""
    return float(np.mean([1 - np.count_nonzero(own) / len(own) ** 2 for own in maps]))


def attention(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, cells: np.ndarray, scaling: float
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 4 over open cells alone, for one head, (N, D); rows without an open cell are 0."""
    num_tokens = len(query)
    probabilities = np.zeros((num_tokens, num_tokens))
    for i in range(num_tokens):
        scores = {
            j: scaling * math.fsum(query[i] * key[j]) for j in range(num_tokens) if cells[i, j]
        }
        highest = max(scores.values(), default=0.0)
        total = math.fsum(math.exp(score - highest) for score in scores.values())
        for j, score in scores.items():
            probabilities[i, j] = math.exp(score - highest) / total
    return probabilities @ value, probabilities


# What the tests of patterns share.

lengths_strategy = st.lists(st.integers(1, 24), min_size=1, max_size=4)


def mask_cells(pattern: Pattern, keep_BN: Tensor) -> np.ndarray:
    """The cells that a pattern without gates opens, (B, N, N), the same for all heads."""
    cells_BHNN = pattern(LayerInput(keep_BN)).dense()
    assert cells_BHNN.shape[1] == 1
    return cells_BHNN[:, 0].numpy()


def site(layer: int = 0, hidden_size: int = 8) -> LayerSite:
    return LayerSite(layer, num_layers=4, hidden_size=hidden_size, num_heads=2)
