"""What tests of whole runs read in a run's directory."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any


def numbers(result: dict[str, Any] | None) -> dict[str, Any]:
    """What must not depend on how the run came to its end."""
    assert result is not None
    names = ("score", "metrics", "sparsity", "sparsity_per_layer", "row_share", "column_share")
    return {name: result[name] for name in names}


def metrics_csv(directory: Path) -> list[list[str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def reached(directory: Path) -> int:
    """The last step in metrics.csv."""
    try:
        return int(metrics_csv(directory)[-1][0])
    except (FileNotFoundError, ValueError, IndexError):
        return -1
