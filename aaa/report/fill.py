"""A measured table put together from several: runs of here, and kept ones of elsewhere."""

from __future__ import annotations

from dataclasses import replace

from aaa.report.measured import FINISHED, Cell, Measured, Run


def fill(table: Measured, kept: Measured) -> Measured:
    """The table with the kept one's finished runs wherever it has none of that seed itself.

    Rows and columns that it does not have are left out. Its facts name what both came from.

    Raises:
        ValueError: if they are different tables, or the same at different scales.
    """
    if (table.name, table.scale) != (kept.name, kept.scale):
        raise ValueError(
            f"{kept.name} at scale {kept.scale} cannot fill {table.name} at scale {table.scale}"
        )
    places = [(row.name, column.name) for row in table.rows for column in table.columns]
    facts = {
        name: tuple(dict.fromkeys([*table.facts.get(name, ()), *kept.facts.get(name, ())]))
        for name in [*table.facts, *kept.facts]
    }
    cells = {place: _filled(table.cell(*place), kept.cell(*place)) for place in places}
    return replace(table, cells=cells, facts=facts)


def _filled(cell: Cell, kept: Cell) -> Cell:
    """Runs in order of their seeds."""
    runs: dict[int | None, Run] = {run.seed: run for run in cell.runs}
    for run in kept.finished:
        if run.seed not in runs or runs[run.seed].status != FINISHED:
            runs[run.seed] = run
    return replace(cell, runs=tuple(sorted(runs.values(), key=lambda run: run.seed or 0)))
