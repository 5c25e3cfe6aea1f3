"""The best pairs of tokens, opened until a density is reached: patterns can be compared at one.

Shape suffixes: P unordered pairs of tokens (i < j).
"""

from __future__ import annotations

import torch
from torch import Tensor

from aaa.numbers import check_finite, check_whole
from aaa.patterns.base import Pattern


def check_size_or_density(
    pattern: str, option: str, size: int | None, lowest: int, density: float | None
) -> None:
    """Exactly one of the two must be given, and be in range.

    Raises:
        ValueError: naming the pattern and what it takes.
    """
    if (size is None) == (density is None):
        raise ValueError(f"{pattern} takes either {option} or density, one of the two")
    if size is not None:
        check_whole(pattern, option, size, lowest)
    if density is not None:
        check_finite(pattern, "density", density)
        if not 0 < density <= 1:
            raise ValueError(f"{pattern} density is a share of cells in (0, 1], not {density}")


def check_one_for_all_lengths(pattern: Pattern, is_one: bool) -> None:
    """Raises a ValueError for a pattern whose cells cannot be drawn ahead."""
    if not is_one:
        raise ValueError(f"{pattern} opens other cells for each length")


def pairs_at(density: float, lengths_B: Tensor) -> Tensor:
    """How many pairs of tokens give texts of these lengths a density; int64, of the same shape.

    With the main diagonal, ``N + 2 pairs`` cells are open: the nearest to ``round(density N^2)``
    that symmetric pairs allow, rounded down, and never less than the diagonal.
    """
    lengths_B = lengths_B.double()
    cells_B = (density * lengths_B**2).round()
    return ((cells_B - lengths_B) / 2).floor().clamp_min(0).long()


def best_pairs(scores_BNN: Tensor, keep_BN: Tensor, num_pairs_B: Tensor) -> Tensor:
    """The cells of the pairs with the highest scores, both ways round, as ``edges_BE2``.

    Args:
        scores_BNN: int64, so that equal scores are equal in every batch; only pairs of two
            different real tokens are looked at, and of these i < j. Among equals the nearer pair
            comes first, then the one that is further to the left.
        keep_BN: true for real tokens.
        num_pairs_B: how many pairs each sample opens.
    """
    num_tokens = keep_BN.shape[-1]
    rows_P, columns_P = torch.triu_indices(num_tokens, num_tokens, 1, device=keep_BN.device)
    real_BP = keep_BN[:, rows_P] & keep_BN[:, columns_P]
    ranks_BP = nearest_first(scores_BNN)[:, rows_P, columns_P]
    ranks_BP = ranks_BP.masked_fill(~real_BP, torch.iinfo(ranks_BP.dtype).min)
    best_BP = ranks_BP.argsort(dim=-1, descending=True, stable=True)
    best_BP = best_BP[:, : int(num_pairs_B.max())]
    unused_BP = torch.arange(best_BP.shape[-1], device=keep_BN.device) >= num_pairs_B[:, None]
    pairs_BP2 = torch.stack([rows_P[best_BP], columns_P[best_BP]], dim=-1)
    pairs_BP2 = pairs_BP2.masked_fill(unused_BP.unsqueeze(-1), -1)
    return torch.cat([pairs_BP2, pairs_BP2.flip(-1)], dim=1)


def nearest_first(scores_BNN: Tensor) -> Tensor:
    """Whole numbers in the order of the scores, and among equal scores in that of nearness."""
    num_tokens = scores_BNN.shape[-1]
    positions_N = torch.arange(num_tokens, device=scores_BNN.device)
    return scores_BNN * num_tokens - (positions_N[:, None] - positions_N[None, :]).abs()
