"""Which texts a run's own figures are of, in words. No torch, no matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEVELOPMENT = "validation"
WORDS = {DEVELOPMENT: "development set", "test": "test split"}


def is_of_development(result: Mapping[str, Any]) -> bool:
    """Whether a result's score, ρ, rows and columns are those of the development set."""
    return result.get("split", DEVELOPMENT) == DEVELOPMENT


def split_of(result: Mapping[str, Any]) -> str:
    """The split that they are of: "development set" or "test split"."""
    split = result.get("split", DEVELOPMENT)
    return WORDS.get(split, f"{split} split")
