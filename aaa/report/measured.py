"""A measured table as data: rows, columns, what runs put into each cell, and the paper's figures.

Everything that is shown is made from this and nothing else. As JSON it is what docs/results/ keeps
of runs that are no longer there.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from aaa.names import known_name

FORMAT = 1  # of the JSON
NOTE_LENGTH = 160  # letters of an error below a table

FINISHED, FAILED, REFUSED, RUNNING, INTERRUPTED, NEEDS, MISSING = STATUSES = (
    "finished", "failed", "refused", "running", "interrupted", "needs", "missing",
)  # fmt: skip

# What a cell may show, all in percent, and what it is called.
SCORE, RHO = "score", "rho"
QUANTITIES = {RHO: "ρ", SCORE: "score", "row_share": "rows", "column_share": "columns"}

Curve = Sequence[tuple[int, float]]  # (optimiser step, value)


@dataclass(frozen=True)
class Run:
    """One seed of a cell.

    Args:
        status: one of STATUSES.
        figures: by the names of QUANTITIES, in percent.
        note: a failure's error, why the config was refused, or what is needed first.
        curves: ``score`` on the development set, in percent, and ``train_loss``.
    """

    seed: int | None
    status: str
    run_id: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    curves: Mapping[str, Curve] = field(default_factory=dict)

    @property
    def short_note(self) -> str:
        """The note as a caption bears it: an error without the long list of names that are known.

        What is needed is a command that can be copied, and whole.
        """
        if self.status == NEEDS:
            return self.note
        beginning = self.note.partition(" known: ")[0].rstrip(";")
        return textwrap.shorten(beginning, NOTE_LENGTH, placeholder=" …")


@dataclass(frozen=True)
class Cell:
    """What runs have measured for one row and column, and what the paper states there."""

    runs: tuple[Run, ...] = ()
    paper: Mapping[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs with figures."""
        return tuple(run for run in self.runs if run.status == FINISHED)

    def values(self, quantity: str) -> list[float]:
        """One quantity of every finished run that has it, in order of seeds."""
        return [run.figures[quantity] for run in self.finished if quantity in run.figures]

    def count(self, status: str) -> int:
        """How many runs are in a state."""
        return sum(run.status == status for run in self.runs)


@dataclass(frozen=True)
class Row:
    """A row: a pattern, or whatever else a table compares.

    Args:
        name: unique in the table.
        label: as shown.
        compared_with: the row that this one's arrows and tests refer to.
        learned: whether its pattern is learned.
        series, x: where the table is a figure, the line and the place on it.
        quoted: whose figures they are, where they are neither ours nor the paper's own.
    """

    name: str
    label: str
    compared_with: str | None = None
    learned: bool = False
    series: str | None = None
    x: float | None = None
    quoted: str | None = None


@dataclass(frozen=True)
class Column:
    """A column, mostly a task; ``metric`` is what its score is, in a few letters."""

    name: str
    label: str
    metric: str = ""


@dataclass(frozen=True)
class Measured:
    """A table with its cells, by (row's name, column's name).

    Args:
        name: as ``aaa table`` knows it, for example ``table_4``.
        quantities: what each cell shows, in this order, of QUANTITIES.
        source: where the paper has it.
        notes: remarks, a sentence each.
        facts: where the figures come from: commits, versions, hardware, model, dates.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[str, str], Cell]
    quantities: tuple[str, ...] = (RHO, SCORE)
    scale: str | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def cell(self, row: str, column: str) -> Cell:
        """The cell, empty where nothing is known."""
        return self.cells.get((row, column), Cell())

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def main(self) -> str:
        """The quantity that is compared."""
        return SCORE if SCORE in self.quantities else self.quantities[0]

    @property
    def has_paper(self) -> bool:
        """Whether the paper's figures are known for any cell."""
        return any(cell.paper for cell in self.cells.values())

    @property
    def seeds(self) -> int:
        """The most finished runs of any cell."""
        return max((len(cell.finished) for cell in self.cells.values()), default=0)

    def runs(self) -> list[tuple[Row, Column, Run]]:
        """Every run with its place, row by row."""
        return [
            (row, column, run)
            for row in self.rows
            for column in self.columns
            for run in self.cell(row.name, column.name).runs
        ]

    def blocks(self) -> list[list[Row]]:
        """Rows that are compared with each other, and those between them, belong together.

        So do neighbours of one series that are compared with nothing.
        """
        place = {row.name: number for number, row in enumerate(self.rows)}
        joined = set()  # the places of rows that are in the block of the row before
        for number, row in enumerate(self.rows):
            if row.compared_with is not None:
                start, end = sorted((place[row.compared_with], number))
                joined |= set(range(start + 1, end + 1))
        compared = self.compared_rows
        for number, (before, row) in enumerate(pairwise(self.rows), start=1):
            if before.series == row.series and not {before.name, row.name} & compared:
                joined.add(number)
        blocks: list[list[Row]] = []
        for number, row in enumerate(self.rows):
            if number not in joined:
                blocks.append([])
            blocks[-1].append(row)
        return blocks

    @property
    def compared_rows(self) -> set[str]:
        """The names of the rows that are compared with others, and of those."""
        pairs = [(row.name, row.compared_with) for row in self.rows if row.compared_with]
        return {name for pair in pairs for name in pair}


def to_json(table: Measured) -> dict[str, Any]:
    """The table as plain data, without what is empty."""
    plain = _plain(table)
    plain["rows"] = [_plain(row) for row in table.rows]
    plain["columns"] = [_plain(column) for column in table.columns]
    plain["cells"] = [
        {"row": row, "column": column, **_plain(cell), "runs": [_plain(run) for run in cell.runs]}
        for (row, column), cell in table.cells.items()
    ]
    return {"format": FORMAT, **plain}


def save(table: Measured, path: Path) -> Path:
    """Writes the table as JSON, a line a run, so that changes can be read in a diff."""
    plain = to_json(table)
    cells = plain.pop("cells")
    lines = ",\n  ".join(json.dumps(cell, ensure_ascii=False) for cell in cells)
    head = json.dumps(plain, ensure_ascii=False, indent=1)[:-2]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head},\n "cells": [\n  {lines}\n ]\n}}\n')
    return path


def load(path: Path) -> Measured:
    """The table of a JSON file.

    Raises:
        ValueError: if there is no such file, or it is no measured table.
    """
    try:
        plain = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(plain, dict) or plain.pop("format", None) != FORMAT:
        raise ValueError(
            f"{path} is no measured table of format {FORMAT}; aaa table NAME writes such a file"
        )
    try:
        return _from_json(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no measured table: {error!r}") from error


def _from_json(plain: dict[str, Any]) -> Measured:
    cells = {
        (cell["row"], cell["column"]): Cell(
            tuple(Run(**{"seed": None, **run}) for run in cell.get("runs", ())),
            cell.get("paper", {}),
        )
        for cell in plain.pop("cells", ())
    }
    rows = tuple(Row(**row) for row in plain.pop("rows"))
    columns = tuple(Column(**column) for column in plain.pop("columns"))
    lists: dict[str, Any] = {
        key: tuple(plain.pop(key)) for key in ("quantities", "notes") if key in plain
    }
    table = Measured(**plain, **lists, rows=rows, columns=columns, cells=cells)
    known = {(row.name, column.name) for row in rows for column in columns}
    others = {row.compared_with for row in rows} - {None} - {row.name for row in rows}
    unknown = [*sorted(set(cells) - known), *sorted(filter(None, others))]
    if unknown:
        raise ValueError(f"there is no row or column for {unknown[0]}")
    if not table.quantities or not set(table.quantities) <= set(QUANTITIES):
        raise ValueError(f"quantities are of {', '.join(QUANTITIES)}, not {table.quantities}")
    for status in sorted({run.status for cell in cells.values() for run in cell.runs}):
        known_name(status, STATUSES, "status")
    return table


def _plain(item: Any) -> dict[str, Any]:
    """A dataclass's fields by name, without empty ones, whose default they all have."""
    return {
        key: value
        for key, value in vars(item).items()
        if value or (value == 0 and value is not False)
    }
