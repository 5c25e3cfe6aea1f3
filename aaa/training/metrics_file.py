"""A run's ``metrics.csv``: each name's values by step. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

METRICS = "metrics.csv"
HEADER = ("step", "name", "value")

Curve = dict[int, float]  # step -> value


def read_metrics(directory: Path, names: Collection[str] | None = None) -> dict[str, Curve]:
    """The curves in a run's directory, all or some of them.

    The last line of a run that is going on may be cut short; it is left out.

    Raises:
        ValueError: if there is no metrics.csv or it is none.
    """
    path = directory / METRICS
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ValueError(
            f"{directory} has no {METRICS}: the run used another logger; use logger=csv"
        ) from None
    header, _, body = text.partition("\n")
    if header.rstrip("\r") != ",".join(HEADER):
        raise ValueError(f"{path} is no run's curve: it begins with {header[:40]!r}")
    chosen = "[^,\r\n]+" if names is None else "|".join(map(re.escape, names))
    curves: dict[str, Curve] = {}
    # One expression over the whole file: a table reads hundreds of them in a second.
    for step, name, value in re.findall(rf"^(\d+),({chosen}),([^,\r\n]+)\r?\n", body, re.M):
        try:
            curves.setdefault(name, {})[int(step)] = float(value)
        except ValueError as error:
            raise ValueError(f"{path} is no run's curve: {error}") from error
    return curves
