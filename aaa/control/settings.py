"""What rho is to be, and what drives the gates there: the group ``sparsity`` of a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from aaa.names import known_name
from aaa.numbers import is_number

Kind = Literal["hinge", "dual", "search", "l1"]
AlphaSchedule = Literal["constant", "linear"]

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
    all logits in proportion to the gap (``Pattern.lower``); and when training has ended, until rho
    on the development set is the target (``aaa.training.settling``).
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
    ramp_end: float = 0.7
    noise_start: float = 0.7
    noise_end: float = 0.85

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
            known_name(getattr(self, name), get_args(kind), f"sparsity.{name}")
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
    def rho(self) -> float:
        """The target as a number: ``match:<pattern>`` has been resolved."""
        assert not isinstance(self.target, str), "match:<pattern> was not resolved"
        return self.target

    @property
    def aim(self) -> float:
        """What training goes for: the target and its margin."""
        return self.rho + self.margin

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

    def level_at(self, progress: float) -> float:
        """The factor of what moves the level of logits, at a share of training in [0, 1].

        It falls to none while masks settle: it would open and close the same gates to the end,
        where a few of them make much of rho (a diagonal of a short text is 7 % of its cells).
        """
        return 1.0 - _risen(progress, self.settles_at, 1.0)

    def alpha_at(self, progress: float) -> float:
        """The hinge's factor at a share of training in [0, 1]."""
        return self.strength * (min(1.0, 2 * progress) if self.alpha_schedule == "linear" else 1)


def _risen(progress: float, start: float, end: float) -> float:
    """0 up to ``start``, 1 from ``end`` on, linear between."""
    if progress >= end:
        return 1.0
    return (progress - start) / (end - start) if progress > start else 0.0
