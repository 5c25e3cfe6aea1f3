"""A run's ``result.json``: written once, whole, and readable without torch."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RESULT = "result.json"
PROGRESS = "progress.json"  # beside it while it trains: step, steps and time
CHECKPOINT = "last.ckpt"  # and the place to go on from
MODEL = "model"  # beside it: the folder that load_sparse reads
BEST_RUN = "best_run"  # in a search's result: which of its attempts has its model and metrics


Status = Literal["finished", "skipped", "busy", "interrupted", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    directory: Path
    status: Status
    result: dict[str, Any] | None = None
    signal_number: int | None = None


def write_result(directory: Path, result: dict[str, Any]) -> Path:
    """Writes ``result.json`` so that a reader sees the whole of it or none."""
    return write_json(directory / RESULT, result)


def write_json(path: Path, value: dict[str, Any]) -> Path:
    """Puts a JSON file in place whole, on disk before it is seen."""
    text = json.dumps(value, indent=2, allow_nan=False, sort_keys=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    partial = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        return partial.replace(path)
    except OSError:  # a full disk, say
        partial.unlink()
        raise


def read_result(directory: Path) -> dict[str, Any] | None:
    """The result in a run's directory, or None where there is none yet.

    Raises:
        ValueError: if the file is there but is no result.
    """
    path = directory / RESULT
    try:
        result = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:  # no JSON, or no text at all
        raise ValueError(
            f"{path} is no JSON ({error}); delete it to have the run done again"
        ) from error
    if not isinstance(result, dict) or "status" not in result:
        raise ValueError(f"{path} is no run's result: it has no 'status'")
    return result


def with_model(directory: Path) -> Path:
    """Where a run's model and metrics are: its directory, or that of a search's best attempt."""
    try:
        best = (read_result(directory) or {}).get(BEST_RUN)
    except (OSError, ValueError):  # a folder of another kind
        return directory
    return directory if best is None else directory.with_name(str(best))


def is_finished(result: dict[str, Any] | None) -> bool:
    """Whether a run has ended with figures."""
    return result is not None and result["status"] == "finished"


def one_line(result: dict[str, Any]) -> str:
    """A run's outcome in one line."""
    who = f"{result['task']} {result['pattern']} seed {result['seed']}"
    if not is_finished(result):
        return f"{who}: {result['status']}: {result['error']}"
    return f"{who}: {figures(result)}"


def figures(result: dict[str, Any]) -> str:
    """What a finished run came to."""
    return f"{result['headline']} {result['score']:.1f} at ρ {100 * result['sparsity']:.1f} %"
