"""From a table's spec and its runs' results to a measured table. Reads JSON and CSV alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aaa.experiments.lock import is_being_run
from aaa.experiments.result import BEST_RUN, CHECKPOINT, is_finished, with_model
from aaa.experiments.tables.cells import Row as SpecRow
from aaa.experiments.tables.cells import Table
from aaa.experiments.tables.index import Record, cells_known, index_path, read_records
from aaa.report.measured import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    MISSING,
    NEEDS,
    REFUSED,
    RUNNING,
    SCORE,
    Cell,
    Column,
    Curve,
    Measured,
    Row,
    Run,
)
from aaa.training.metrics_file import read_metrics

Result = dict[str, Any]

CURVE_POINTS = 20  # that a curve is reduced to, by means over stretches of steps
CURVE_DIGITS = 3


def collect(table: Table, output_dir: Path) -> Measured:
    """What runs under ``output_dir`` have measured of a table.

    Raises:
        ValueError: if the table's index or a result cannot be read.
    """
    records = read_records(index_path(output_dir, table.name, table.scale))
    results: list[Result] = []
    runs: dict[tuple[str, str], list[Run]] = {}
    for cell in cells_known(table, records):
        record = records.get(cell.key)
        if record is None or not record.is_of(cell):
            record = Record(*cell.key, cell.overrides)
        result = record.result(output_dir)
        if is_finished(result):
            assert result is not None
            results.append(result)
        place = (cell.row, cell.column)
        runs.setdefault(place, []).append(_run(record, result, output_dir))
    rows = tuple(_row(row) for row in table.rows)
    has_score = SCORE in table.quantities
    columns = tuple(Column(c.name, c.label, c.metric if has_score else "") for c in table.columns)
    return Measured(
        name=table.name,
        title=_title(table),
        rows=rows,
        columns=columns,
        cells={
            (row.name, column.name): Cell(
                tuple(runs.get((row.name, column.name), ())),
                {
                    quantity: figures[column.name]
                    for quantity, figures in row.paper.items()
                    if column.name in figures
                },
            )
            for row in table.rows
            for column in table.columns
        },
        quantities=table.quantities,
        scale=table.scale,
        source=table.source,
        notes=table.notes,
        facts=facts(results),
    )


def finished_run(result: Result, directory: Path) -> Run:
    """A finished run's figures and curves."""
    return Run(
        result["seed"], FINISHED, result["run_id"], figures(result),
        curves=curves(result, directory),
    )  # fmt: skip


def figures(result: Result) -> dict[str, float]:
    """A result's quantities, in percent; shares are means over the layers that have them."""
    found = {"rho": 100 * result["sparsity"], "score": result["score"]}
    for name in ("row_share", "column_share"):
        there = [value for value in result.get(name) or () if value is not None]
        if there:
            found[name] = 100 * statistics.fmean(there)
    return found


def curves(result: Result, directory: Path) -> dict[str, Curve]:
    """The headline on the development set, and the loss in training; a few points each.

    None where the run has no metrics.csv any more. Those of a search are its best attempt's.
    """
    names = {
        "score": f"validation/{result['headline']}",
        "train_loss": "train/loss",
    }
    place = with_model(directory) if BEST_RUN in result else directory
    try:
        found = read_metrics(place, names.values())
    except ValueError:
        return {}
    score, loss = (found.get(key, {}) for key in names.values())
    last = {result["steps"]: result["metrics"]["validation"][result["headline"]]}
    percent = {step: 100 * value for step, value in (score | last).items()}
    reduced = {"score": _reduced(percent), "train_loss": _reduced(loss)}
    return {name: curve for name, curve in reduced.items() if curve}


def facts(results: Sequence[Result]) -> dict[str, list[str]]:
    """Where figures come from: what differs between results is listed."""
    if not results:
        return {}
    hardware = [result.get("hardware") or {} for result in results]
    seconds = [result.get("wall_seconds") or 0.0 for result in results]
    versions = [result.get("versions") or {} for result in results]
    found = {
        "model": [result["model"] for result in results],
        "split that is reported": [result.get("split", "validation") for result in results],
        "commit": [result.get("git_commit") for result in results],
        "device": [h.get("accelerator") or h.get("device") for h in hardware],
        "processor": [h.get("processor") for h in hardware],
        "processes a run": [h.get("processes") for h in hardware],
        "optimiser steps": [result.get("steps") for result in results],
        "hours of all runs": [f"{sum(seconds) / 3600:.2f}"],
        "versions": [f"{name} {v}" for of_run in versions for name, v in of_run.items()],
    }
    return {name: texts for name, values in found.items() if (texts := _distinct(values))}


def _title(table: Table) -> str:
    """With the number that the paper gives it: "Table 4: ..."."""
    kind, _, number = table.name.partition("_")
    is_numbered = kind in ("table", "figure") and number.isdigit()
    return f"{kind.capitalize()} {number}: {table.title}" if is_numbered else table.title


def _row(row: SpecRow) -> Row:
    return Row(
        row.name, row.label, row.compare, learned=row.target is not None, series=row.series,
        x=row.x, quoted=row.quoted,
    )  # fmt: skip


def _run(record: Record, result: Result | None, output_dir: Path) -> Run:
    """How a cell stands, in one seed."""
    state = record.state(result)
    directory = output_dir / "runs" / str(record.run_id)
    if state == "finished":
        assert result is not None
        return finished_run(result, directory)
    if state == "needs":
        return Run(record.seed, NEEDS, record.run_id, note="; ".join(record.needs))
    if state == "refused":
        return Run(record.seed, REFUSED, record.run_id, note=str(record.problem))
    if is_being_run(directory):
        return Run(record.seed, RUNNING, record.run_id)
    if state == "failed":
        assert result is not None
        return Run(record.seed, FAILED, record.run_id, note=str(result.get("error", "")))
    status = INTERRUPTED if (directory / CHECKPOINT).exists() else MISSING
    return Run(record.seed, status, record.run_id)


def _reduced(curve: Mapping[int, float]) -> Curve:
    """At most CURVE_POINTS, each the mean of a stretch and at its last step."""
    steps = sorted(curve)
    length = -(-len(steps) // CURVE_POINTS)
    stretches = [steps[start : start + length] for start in range(0, len(steps), max(1, length))]
    return [
        (stretch[-1], round(statistics.fmean([curve[step] for step in stretch]), CURVE_DIGITS))
        for stretch in stretches
    ]


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))
