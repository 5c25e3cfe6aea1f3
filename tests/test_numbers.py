"""What is no number, or one of the wrong kind, is refused where a pattern is made."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from aaa.patterns import Axis, FixedDiagonal, Pattern
from aaa.patterns.spec import known_patterns

WHOLE = {
    "Local size": 0,
    "Global size": 1,
    "Random size": 1,
    "Random seed": 0,
    "Lexical size": 1,
    "Syntax hops": 0,
    "Degree max_degree": 1,
    "Diagonal num_distances": 1,
}
FINITE = [
    *(f"{name} {option}" for name in ("Axis", "Degree", "Diagonal")
      for option in ("initial_logit", "temperature")),
    *(f"{name} density" for name in ("Local", "Random", "Lexical", "Syntax")),
]  # fmt: skip


def made(name_and_argument: str, value: Any) -> Pattern:
    name, argument = name_and_argument.split()
    further = {"size": 1} if argument == "seed" else {}
    return known_patterns()[name](**{argument: value}, **further)


@pytest.mark.parametrize("value", [1.5, 2.0, True, "abc", "2", [1]], ids=repr)
@pytest.mark.parametrize("argument", WHOLE)
def test_whole_numbers(argument: str, value: Any) -> None:
    said = f"{argument} is a whole number from {WHOLE[argument]} on, not {value!r}"
    with pytest.raises(ValueError, match=re.escape(said)):
        made(argument, value)
    made(argument, WHOLE[argument])


@pytest.mark.parametrize("value", [True, "abc", math.nan, math.inf, [1.0]], ids=repr)
@pytest.mark.parametrize("argument", FINITE)
def test_finite_numbers(argument: str, value: Any) -> None:
    said = f"{argument} is a finite number, not {value!r}"
    with pytest.raises(ValueError, match=re.escape(said)):
        made(argument, value)
    made(argument, 1)
    made(argument, 0.5)


@pytest.mark.parametrize("value", ["no", "task", 0, 1, None], ids=repr)
@pytest.mark.parametrize("argument", ["rows", "columns", "per_head"])
def test_true_and_false(argument: str, value: Any) -> None:
    said = f"Axis {argument} must be true or false, not {value!r}"
    with pytest.raises(ValueError, match=re.escape(said)):
        Axis(**{argument: value})


@pytest.mark.parametrize("distance", [1.5, True, "a"], ids=repr)
def test_distances(distance: Any) -> None:
    with pytest.raises(ValueError, match="lists of whole numbers from 1"):
        FixedDiagonal(distances=[[[distance]]])
