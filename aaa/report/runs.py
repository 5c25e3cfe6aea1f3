"""Tables over any runs, patterns x tasks: what there is, with no spec of what should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aaa.experiments.result import RESULT, is_finished, read_result
from aaa.report.collect import Result, facts, finished_run
from aaa.report.measured import Cell, Column, Measured, Row

Found = tuple[Result, Path]  # a result and the directory of its run

# Settings that do not decide a run's numbers, or are seen in the data's content.
NO_SETTINGS = ("data.path", "data.revision")


def read_runs(folders: Iterable[Path]) -> list[Found]:
    """The finished runs in the given folders: each one a run's directory, or a folder of such.

    Raises:
        ValueError: if a folder is missing or holds no finished run.
    """
    runs: dict[str, Found] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(
                f"there is no folder {folder}; runs lie under outputs/runs unless told otherwise"
            )
        directories = [folder] if (folder / RESULT).exists() else sorted(folder.iterdir())
        found = [(read_result(place), place) for place in directories if place.is_dir()]
        finished = [
            (result, place)
            for result, place in found
            if result is not None and is_finished(result)
        ]
        if not finished:
            raise ValueError(f"{folder} holds no finished run (a directory with a {RESULT})")
        runs |= {result["run_id"]: (result, place) for result, place in finished}
    return list(runs.values())


def tables_of(runs: Sequence[Found]) -> list[Measured]:
    """One table an encoder: rows of patterns, columns of tasks."""
    models = dict.fromkeys(result["model"] for result, _ in runs)
    return [_table(model, [run for run in runs if run[0]["model"] == model]) for model in models]


def _table(model: str, runs: Sequence[Found]) -> Measured:
    tasks = sorted({result["task"] for result, _ in runs})
    metrics = {result["task"]: result["headline"] for result, _ in runs}
    cells: dict[tuple[str, str], Cell] = {}
    learned: dict[str, bool] = {}
    for pattern in sorted({result["pattern"] for result, _ in runs}, key=_order):
        of_pattern = [run for run in runs if run[0]["pattern"] == pattern]
        for row, task, found in _cells(pattern, of_pattern):
            by_seed = sorted(found, key=lambda run: int(run[0]["seed"]))
            cells[row, task] = Cell(tuple(finished_run(*run) for run in by_seed))
            learned[row] = found[0][0]["sparsity_target"] is not None
    return Measured(
        name=f"runs-{model}",
        title=f"Runs of {model}",
        rows=tuple(Row(row, row, learned=is_learned) for row, is_learned in learned.items()),
        columns=tuple(Column(task, task, metrics[task]) for task in tasks),
        cells=cells,
        facts=facts([result for result, _ in runs]),
    )


def _cells(pattern: str, runs: Sequence[Found]) -> list[tuple[str, str, list[Found]]]:
    """Row, task and runs of each cell: the runs that differ in nothing but their seed."""
    cells: dict[tuple[str, str], list[Found]] = {}
    for run in runs:
        cells.setdefault((run[0]["task"], run[0]["cell_id"]), []).append(run)
    varying = _varying_settings([found[0][0] for found in cells.values()])
    rows: dict[tuple[str, str], list[Found]] = {}
    for (task, cell_id), found in cells.items():
        settings = _settings(found[0][0])
        row = ", ".join([pattern, *(f"{key}={settings.get(key)}" for key in varying)])
        if (row, task) in rows:  # other weights or data under the same settings
            row = f"{row} ({cell_id})"
        rows[row, task] = found
    return [(row, task, found) for (row, task), found in rows.items()]


def _order(pattern: str) -> tuple[int, str]:
    """Full attention first and adaptive axes last, as in the paper's tables."""
    return {"full": 0, "aaa": 2}.get(pattern, 1), pattern


def _varying_settings(cells: Sequence[Result]) -> list[str]:
    """The settings in which cells of one pattern differ though they are of one task."""
    varying = set()
    for task in {cell["task"] for cell in cells}:
        settings = [_settings(cell) for cell in cells if cell["task"] == task]
        keys = {key for values in settings for key in values}
        varying |= {key for key in keys if len({str(values.get(key)) for values in settings}) > 1}
    return sorted(varying)


def _settings(result: Result) -> dict[str, Any]:
    """What tells cells of one pattern and task apart, with dotted keys as on the command line."""
    groups = ["pattern", "training", "data"] + (
        ["sparsity"] if result["sparsity_target"] is not None else []
    )
    flat: dict[str, Any] = {}
    for group in groups:
        _flatten(group, result["config"][group], flat)
    return {key: value for key, value in flat.items() if key not in NO_SETTINGS}


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}.{key}", item, into)
    else:
        into[prefix] = value
