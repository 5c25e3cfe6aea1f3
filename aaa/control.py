"""How training is brought to its target rho: the hinge of Eq. 10, a multiplier, or a price.

Shape suffixes: B batch, N true lengths (an entry for each length from 0 on).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaa.numbers import is_number
from aaa.objective import NO_WINDOWS, Windows, sparsity_by_length
from aaa.patterns.base import Pattern

Kind = Literal["hinge", "dual", "search", "l1"]
AlphaSchedule = Literal["constant", "linear"]

INTEGRAL_TIME = 0.2  # share of training in which a small gap that stays doubles its force
NEAR = 0.02  # a gap counts for no more in the integral: far from the target it would overshoot
RECENT = 0.15  # share of training over which the gap of training texts is averaged
# A gap lowers all logits so that it is gone after a share of training, where a logit less closes a
# share of the cells; no faster than by a few times the gap, and by no more than for a large gap.
LEVEL_TIME, CLOSED_BY_A_LOGIT = 0.01, 0.1
FASTEST_LEVEL, LARGE = 2.0, 0.3
LENGTH_BINS = 8

# Of each control, where none is given: dual's factor meets gaps of a percent, the hinge's is
# tuned on STS-B, a search begins low, since it raises its own, and SparseBERT's is its class's.
USUAL_ALPHA = {"dual": 100.0, "hinge": 30.0, "search": 2.0, "l1": 1e-4}


@dataclass(frozen=True)
class SparsityControl:
    """What rho is to be, and what drives the gates there.

    ``hinge`` is Eq. 10: ``alpha * max(0, gap)`` where the gap is what rho lacks of its target. It
    closes gates and never opens one again. ``dual`` is ours: ``multiplier * gap``, where the
    multiplier follows the gap as in an augmented Lagrangian, ``alpha * (gap + its integral)``; it
    may be negative, so that gates open again above the target, and one run ends at the target.
    The multiplier acts through the optimiser and is slow; so each step also lowers the level of
    all logits in proportion to the gap (``Pattern.lower``), and an evaluation on the way corrects
    the gap for what training texts do not tell (``Controller.correct``).
    ``search`` is the paper's procedure: the hinge with both schedules of alpha, alpha raised until
    the target is met, and the best of those runs (``aaa.experiments.search``).
    ``l1`` is SparseBERT's (Shi et al., 2021): ``alpha * |M|_1``, every open cell of every head's
    mask has a price; where rho ends is what comes of it, and no target is read. Theirs is one mask
    for all layers, of 128 x 128 cells; here the mean over layers and texts, of N x N each.

    Args:
        target: rho to end at, in [0, 1); or ``match:<pattern>``, the rho that a fixed pattern of
            conf/pattern has on the task's development set (to be resolved before training);
            ``match:<pattern>:<source>`` for one that is copied from a trained model.
        control: ``hinge``, ``dual``, ``search`` or ``l1``.
        alpha: the factor of the gap; where a search begins; the price of a cell (SparseBERT's
            lambda: 1e-4 to 1e-1). None for ``USUAL_ALPHA``'s.
        alpha_schedule: of the hinge: ``constant``, or ``linear``: from 0 to ``alpha`` at half of
            training, then constant. These are the paper's two.
        margin: added to the target in training. The hinge has no force at its corner, so the task
            keeps rho a little below it; the paper raises alpha instead until the target is met.
        ramp_start, ramp_end: shares of training between which the target itself rises linearly
            from 0; both 0 for a target that stands from the start, as in the paper. Ours:
            enforcing a high target at once closes gates before the task can tell which matter.
            Gates do not learn before ``ramp_start``.
        noise_start, noise_end: shares of training between which the gates' noise falls linearly
            to none; 1 and 1 to keep it to the end, as in the paper. Ours: gates that are half open
            under noise all open or all close without it, so that rho at evaluation is off.

    Raises:
        ValueError: naming the field that is out of range.
    """

    target: float | str
    control: Kind = "dual"
    alpha: float | None = None
    alpha_schedule: AlphaSchedule = "constant"
    margin: float = 0.0
    ramp_start: float = 0.0
    ramp_end: float = 0.4
    noise_start: float = 0.4
    noise_end: float = 0.6

    def __post_init__(self) -> None:
        if isinstance(self.target, str) or not is_number(self.target):
            if not str(self.target).startswith("match:"):
                raise ValueError(
                    "sparsity.target is a number in [0, 1) or match:<pattern>, "
                    f"not {self.target!r}"
                )
        elif not 0 <= self.target < 1:
            raise ValueError(
                f"sparsity.target is a share of closed cells in [0, 1), not {self.target}"
            )
        if self.alpha is not None and not (is_number(self.alpha) and self.alpha > 0):
            raise ValueError(f"sparsity.alpha is a number above 0 or null, not {self.alpha!r}")
        for name, kind in (("control", Kind), ("alpha_schedule", AlphaSchedule)):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise ValueError(
                    f"unknown sparsity.{name} {getattr(self, name)!r}; known: {known}"
                )
        if not (is_number(self.margin) and 0 <= self.margin < 1):
            raise ValueError(f"sparsity.margin is a share of cells in [0, 1), not {self.margin!r}")
        for name in ("ramp", "noise"):
            start, end = getattr(self, f"{name}_start"), getattr(self, f"{name}_end")
            if not (is_number(start) and is_number(end) and 0 <= start <= end <= 1):
                raise ValueError(
                    f"sparsity.{name}_start and sparsity.{name}_end are shares of training, "
                    f"0 <= start <= end <= 1, not {start!r} and {end!r}"
                )

    @property
    def has_target(self) -> bool:
        """Whether there is a rho to be reached."""
        return self.control != "l1"

    @property
    def matched_pattern(self) -> str | None:
        """The pattern whose rho is to be matched, or None where the target is a number."""
        return self._matched[0]

    @property
    def matched_source(self) -> str | None:
        """The run or folder that the matched pattern is copied from, if it is."""
        return self._matched[1] or None

    @property
    def _matched(self) -> tuple[str | None, str]:
        if not isinstance(self.target, str) or not self.has_target:
            return None, ""
        name, _, source = self.target.removeprefix("match:").partition(":")
        return name, source

    @property
    def strength(self) -> float:
        """``alpha``, or what is usual for this control."""
        return USUAL_ALPHA[self.control] if self.alpha is None else self.alpha

    def ramp_at(self, progress: float) -> float:
        """The share of the target that is asked for at a share of training in [0, 1]."""
        return _risen(progress, self.ramp_start, self.ramp_end)

    def noise_at(self, progress: float) -> float:
        """The factor of the gates' noise at a share of training in [0, 1]."""
        return 1.0 - _risen(progress, self.noise_start, self.noise_end)

    @property
    def settles_at(self) -> float:
        """The share of training from which target and noise are as they will be at the end."""
        return max(self.ramp_end, self.noise_end)

    def alpha_at(self, progress: float) -> float:
        """The hinge's factor at a share of training in [0, 1]."""
        return self.strength * (min(1.0, 2 * progress) if self.alpha_schedule == "linear" else 1)


def _risen(progress: float, start: float, end: float) -> float:
    """0 up to ``start``, 1 from ``end`` on, linear between."""
    if progress >= end:
        return 1.0
    return (progress - start) / (end - start) if progress > start else 0.0


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


class Controller(nn.Module):
    """The sparsity term of the loss, and the running state behind it (saved in checkpoints).

    Args:
        settings: see there.
        by_length: the target and the weight of each text.
        num_batches: batches of the whole training; several make a step where they accumulate.
        num_heads: attention heads of a layer; ``l1`` counts the cells of each.
    """

    target_N: Tensor
    weight_N: Tensor
    integral: Tensor
    recent_gap: Tensor
    shift: Tensor

    def __init__(
        self,
        settings: SparsityControl,
        by_length: LengthTarget,
        num_batches: int,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        assert settings.control != "search", "a search is made of runs under the hinge"
        self.settings, self.num_batches, self.num_heads = settings, num_batches, num_heads
        self.register_buffer("target_N", by_length.target_N, persistent=False)
        self.register_buffer("weight_N", by_length.weight_N, persistent=False)
        for state, start in (("integral", 0.0), ("recent_gap", math.nan), ("shift", 0.0)):
            self.register_buffer(state, torch.tensor(start, dtype=torch.float64))
        self.alpha = self.gap = self.target = 0.0  # of the latest step, to be shown
        self.lowering = 0.0  # of all logits, that the latest step asks for
        self.waiting = False  # for the target to begin to rise

    def forward(
        self,
        rho_B: Tensor,
        lengths_B: Tensor,
        progress: float,
        average: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> Tensor:
        """The term of one batch, a scalar with the gradient of ``rho_B``.

        Args:
            rho_B: rho of each text, with gradient.
            lengths_B: their true lengths.
            progress: share of training done, in [0, 1).
            average: over processes, of a tensor without gradient.
        """
        settings = self.settings
        if settings.control == "l1":
            self.alpha = settings.strength
            return self.alpha * (self.num_heads * lengths_B**2 * (1 - rho_B)).mean()
        assert not isinstance(settings.target, str), "match:<pattern> was not resolved"
        ramp = settings.ramp_at(progress)
        self.target = settings.target * ramp
        self.waiting = ramp == 0
        target_B = self.target_N[lengths_B] * ramp
        weight_B = self.weight_N[lengths_B]
        gap = (weight_B * (target_B - rho_B)).mean()
        self.gap = float(average(gap.detach()))
        if settings.control == "hinge":
            self.alpha = settings.alpha_at(progress)
            return self.alpha * torch.relu(gap)
        if self.waiting:  # or open gates would be driven further open
            self.alpha = self.lowering = 0.0
            return 0.0 * gap
        self._remember()
        gap = gap + float(self.shift)
        self.gap += float(self.shift)
        near = max(-NEAR, min(NEAR, self.gap))
        self.integral += near / (INTEGRAL_TIME * self.num_batches)
        speed = min(FASTEST_LEVEL, 1 / (LEVEL_TIME * self.num_batches * CLOSED_BY_A_LOGIT))
        self.lowering = speed * max(-LARGE, min(LARGE, self.gap))
        self.alpha = settings.strength * (self.gap + float(self.integral))
        return self.alpha * gap

    def _remember(self) -> None:
        """Keeps a running mean of the gap on training texts, before it is corrected."""
        share = min(1.0, 1 / (RECENT * self.num_batches))
        change = self.gap - float(self.recent_gap)
        if math.isnan(change):  # the first
            self.recent_gap.fill_(self.gap)
        else:
            self.recent_gap += share * change

    def correct(self, rho: float, progress: float) -> None:
        """Learns from rho on the development set how far the training texts' gap is off.

        Development sets differ from training sets in more than their lengths: on STS-B, texts of
        the same length end 2 points less sparse. Of ``dual``, once target and noise are as they
        will be at the end. The texts' labels are not used.
        """
        settings = self.settings
        settled = progress >= settings.settles_at and bool(self.recent_gap.isfinite())
        if settings.control == "dual" and settled:
            assert not isinstance(settings.target, str), "match:<pattern> was not resolved"
            self.shift.fill_(settings.target + settings.margin - rho - float(self.recent_gap))
