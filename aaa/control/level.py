"""Moving the level of trained gates until rho is what it is to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aaa.control.controller import CLOSED_BY_A_LOGIT

CLOSE = 0.001  # of rho to its target: nearer needs no further look
LOOKS = 12  # at most, as a rule 2 to 4; each is a pass over the development set
BEYOND = 1.5  # times as far as a straight line says, to have the target between two looks
FARTHEST = 1.0  # of a look from the one before, in logits


@torch.no_grad()
def settle_level(
    gates: Sequence[Tensor],
    lower: Callable[[float], None],
    measure: Callable[[], float],
    target: float,
) -> tuple[float, float, float]:
    """Lowers all logits by what brings rho nearest to its target; ours.

    rho rises with what logits are lowered by, in steps: each closes a gate of some texts. So it is
    looked at along straight lines until the target lies between two looks; between them on the
    line that joins them, or half-way where that did not halve what is between. The nearest of all
    looks is what the gates are left at, which is where they were if nothing was nearer.

    Args:
        gates: the parameters of the gates, changed in place.
        lower: lowers the logits of all gates that have a common level.
        measure: rho of the gates as they are.
        target: rho as it is to be.

    Returns:
        By what logits were lowered (above 0 for a rho that was too low), rho at the beginning, and
        rho at the end.
    """
    trained = [gate.clone() for gate in gates]

    def put(by: float) -> bool:
        for gate, weights in zip(gates, trained, strict=True):
            gate.copy_(weights)
        if by:
            lower(by)
        # A trainer may have moved the gates to another device since.
        pairs = zip(gates, trained, strict=True)
        return not all(gate.equal(weights.to(gate.device)) for gate, weights in pairs)

    bracket = _Bracket()
    gaps: dict[float, float] = {}
    by = 0.0
    for _ in range(LOOKS):
        if by and not put(by):  # there is no level, or it is at its bound
            break
        gaps[by] = target - measure()
        if abs(gaps[by]) <= CLOSE:
            break
        by = bracket.next(by, gaps[by])
    nearest = min(gaps, key=lambda place: abs(gaps[place]))
    put(nearest)
    return nearest, target - gaps[0.0], target - gaps[nearest]


class _Bracket:
    """The nearest look on each side of the target, and where to look next."""

    def __init__(self) -> None:
        self.sides: dict[bool, tuple[float, float]] = {}  # rho too low? -> (place, gap)
        self.width = math.inf

    def next(self, by: float, gap: float) -> float:
        before = self.sides.get(gap > 0)
        self.sides[gap > 0] = (by, gap)
        if len(self.sides) == 1:
            slope = CLOSED_BY_A_LOGIT
            seen = slope if before is None else (before[1] - gap) / (by - before[0])
            if seen > 0:
                slope = min(slope, seen)
            return by + max(-FARTHEST, min(FARTHEST, BEYOND * gap / slope))
        (low, over), (high, under) = self.sides[True], self.sides[False]
        width, self.width = self.width, abs(high - low)
        if self.width > width / 2:  # a steep step near one end: halves are safer than lines
            return (low + high) / 2
        return low + (high - low) * over / (over - under)
