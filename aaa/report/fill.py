"""A measured table put together from several: runs of here, and kept ones of elsewhere."""

from __future__ import annotations

from dataclasses import replace

from aaa.report.measured import Cell, Measured, Run


def fill(table: Measured, kept: Measured) -> Measured:
    """The table with the kept one's finished runs wherever it has none of that seed itself.

    Rows and columns that it does not have are left out, and so are runs of other settings
    (``of_other_settings``). Its facts name what both came from.

    Raises:
        ValueError: if they are different tables, or the same at different scales.
    """
    if (table.name, table.scale) != (kept.name, kept.scale):
        raise ValueError(
            f"{kept.name} at scale {kept.scale} cannot fill {table.name} at scale {table.scale}"
        )
    cells = {place: _filled(table.cell(*place), kept.cell(*place)) for place in _places(table)}
    if all(cells[place] == table.cell(*place) for place in cells):  # nothing stands in
        return table
    facts = {
        name: tuple(dict.fromkeys([*table.facts.get(name, ()), *kept.facts.get(name, ())]))
        for name in [*table.facts, *kept.facts]
    }
    return replace(table, cells=cells, facts=facts)


def of_other_settings(table: Measured, kept: Measured) -> list[str]:
    """The kept runs that stand in for nothing although there is none here: row, column, seed.

    A run is named by all that decides its numbers, and a sweep has named another one for their
    cells: these were made by an older recipe, from other data or with other overrides. Where no
    sweep has named a cell's run yet, any will do.
    """
    return [
        f"{row} · {column} · seed {run.seed}"
        for row, column in _places(table)
        for run in _wanting(table.cell(row, column), kept.cell(row, column))
        if not _is_named(run, table.cell(row, column))
    ]


def _places(table: Measured) -> list[tuple[str, str]]:
    return [(row.name, column.name) for row in table.rows for column in table.columns]


def _wanting(cell: Cell, kept: Cell) -> list[Run]:
    """The kept runs of seeds that are not finished here."""
    here = {run.seed for run in cell.finished}
    return [run for run in kept.finished if run.seed not in here]


def _is_named(run: Run, cell: Cell) -> bool:
    names = {here.run_id for here in cell.runs if here.seed == run.seed}
    return run.run_id in names or names <= {None}


def _filled(cell: Cell, kept: Cell) -> Cell:
    """Runs in order of their seeds."""
    runs: dict[int | None, Run] = {run.seed: run for run in cell.runs}
    runs |= {run.seed: run for run in _wanting(cell, kept) if _is_named(run, cell)}
    return replace(cell, runs=tuple(sorted(runs.values(), key=lambda run: run.seed or 0)))
