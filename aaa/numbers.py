"""What is taken as a number, or as true or false, where anything may be given."""

from __future__ import annotations

import math
from typing import Any, cast


def check_whole(owner: str, argument: str, value: Any, least: int) -> None:
    """Raises a ValueError for what is no whole number from ``least`` on."""
    if not is_number(value, int) or value < least:
        raise ValueError(f"{owner} {argument} is a whole number from {least} on, not {value!r}")


def check_finite(owner: str, argument: str, value: Any, above: float | None = None) -> None:
    """Raises a ValueError for what is no finite number, or not above a bound."""
    if not is_finite(value):
        raise ValueError(f"{owner} {argument} is a finite number, not {value!r}")
    if above is not None and value <= above:
        raise ValueError(f"{owner} {argument} is above {above}, not {value!r}")


def check_bool(what: str, value: Any) -> None:
    """Raises a ValueError for what is neither true nor false: ``"no"`` would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{what} must be true or false, not {value!r}")


def is_finite(value: object) -> bool:
    """Whether it is a number, and neither infinite nor none (NaN)."""
    return is_number(value) and math.isfinite(cast(float, value))


def is_number(value: object, *kinds: type) -> bool:
    """Whether a value is of one of these kinds of number; true and false are none."""
    return isinstance(value, kinds or (int, float)) and not isinstance(value, bool)
