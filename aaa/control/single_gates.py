"""Turning single gates where no level of all gates brings rho to its target."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from aaa.patterns.base import DistanceGate

NEAR_ENOUGH = 0.005  # of rho to its target: half of what is promised
ALIKE = 0.001  # shares that differ by less are taken for equal
FAR = 2.0  # times the missing size: a gate that is off by more than that is left alone
TURNS = 4  # at most; each is a pass over the development set


def settle_gates(
    shares: Mapping[DistanceGate, float], measure: Callable[[], float], rho: float, target: float
) -> int:
    """Opens or closes single gates until rho is near its target; ours.

    One diagonal for all layers of a model can be four percent of its cells, and of short texts
    more: then rho steps over its target whatever the level of the gates. So of the gates that are
    to be turned, those of about the missing size count, and of these the least decided one is
    turned; where that is too much, others make up for it. What has not brought rho nearer in the
    end is undone.

    Args:
        shares: those that can be turned, changed in place, and their shares of the cells.
        measure: rho of the gates as they are.
        rho: of the gates as they are, to begin with.
        target: rho as it is to be.

    Returns:
        How many gates were turned.
    """
    turned: list[DistanceGate] = []
    nearest, keep = abs(target - rho), 0
    while len(turned) < TURNS and abs(gap := target - rho) > NEAR_ENOUGH:
        off = {
            gate: abs(share - abs(gap))
            for gate, share in shares.items()
            if gate.is_open == (gap > 0) and gate not in turned
        }
        least = min(off.values(), default=math.inf)
        if least > FAR * abs(gap):
            break
        gate = min((one for one in off if off[one] <= least + ALIKE), key=lambda g: abs(g.weight))
        gate.turn()
        turned.append(gate)
        rho = measure()
        if abs(target - rho) < nearest:
            nearest, keep = abs(target - rho), len(turned)
    for gate in turned[keep:]:
        gate.turn()
    return keep
