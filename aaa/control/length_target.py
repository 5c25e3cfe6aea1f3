"""The target rho of a text by its length.

Shape suffixes: N true lengths (an entry for each length from 0 on).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.objective import NO_WINDOWS, Windows, sparsity_by_length
from aaa.patterns.base import Pattern

LENGTH_BINS = 8


@dataclass(frozen=True)
class LengthTarget:
    """The target for a text of each length, and how much a text of that length counts.

    rho is a mean over the development set (Eq. 9), while training sees batches of its own texts,
    each batch of like lengths. Short texts cannot be as sparse as long ones, and development sets
    may be longer (SST-2: 25 tokens against 13). So each text is held against
    ``target * highest(N) / mean of highest``, where ``highest(N)`` is the rho of the pattern with
    all gates closed, and counts as often as texts of about its length occur in the development
    set. The weighted gap of the training texts then estimates the gap on the development set, and
    hardly depends on which lengths a batch happens to have. All of this is ours.
    """

    target_N: Tensor
    weight_N: Tensor

    @classmethod
    def fit(
        cls,
        target: float,
        closed: Pattern,
        num_layers: int,
        training_lengths: Sequence[int],
        evaluation_lengths: Sequence[int],
        windows: Windows = NO_WINDOWS,
    ) -> LengthTarget:
        """For a target rho on texts of ``evaluation_lengths``."""
        training, evaluation = torch.tensor(training_lengths), torch.tensor(evaluation_lengths)
        longest = int(max(training.max(), evaluation.max()))
        lengths_N = torch.arange(1, longest + 1)
        highest_N = F.pad(sparsity_by_length(closed, lengths_N, num_layers, windows), (1, 0))
        mean = highest_N[evaluation].mean().clamp_min(1e-9)
        return cls(
            (target * highest_N / mean).clamp_max(highest_N).float(),
            _relative_frequency(training, evaluation, longest).float(),
        )


def _relative_frequency(training: Tensor, evaluation: Tensor, longest: int) -> Tensor:
    """How much more often a length occurs in evaluation than in training, by bins; shape (N,)."""
    shares = torch.linspace(0, 1, LENGTH_BINS + 1, dtype=torch.float64)[1:-1]
    edges = evaluation.double().quantile(shares).unique()
    frequencies = []
    for lengths in (evaluation, training):
        counts = torch.bucketize(lengths.double(), edges).bincount(minlength=len(edges) + 1)
        frequencies.append(counts / counts.sum())
    expected, seen = frequencies
    weight = torch.where(seen > 0, expected / seen.clamp_min(1e-12), 0.0)
    weight = weight / (weight * seen).sum()
    return weight[torch.bucketize(torch.arange(longest + 1).double(), edges)]
