"""Which run does which cell: written by a sweep, read by whoever shows the table. No torch.

``outputs/tables/<table>.<scale>.json`` has a record for each cell that a sweep was last asked
for. The runs themselves lie where all runs lie; cells of several tables may share one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from aaa.experiments.result import is_finished, read_result, write_json
from aaa.experiments.tables.spec import Cell, Table

FOLDER = "tables"
LISTS = ("overrides", "needs", "pretraining")  # of a record

State = Literal["finished", "failed", "missing", "needs", "refused"]


@dataclass(frozen=True)
class Record:
    """A cell and its run.

    Args:
        row, column, seed: which cell.
        overrides: of the ``aaa finetune`` that does it, those of the command line included.
        run_id: the run's directory under ``runs``; None while it cannot be named.
        needs: what has to be there first, as commands or as options to give.
        problem: why its config was refused.
        pretraining: the cell's, when it was written; None in an index of an earlier version.
    """

    row: str
    column: str
    seed: int
    overrides: tuple[str, ...]
    run_id: str | None = None
    needs: tuple[str, ...] = ()
    problem: str | None = None
    pretraining: tuple[str, ...] | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from the other cells of its table and scale."""
        return self.row, self.column, self.seed

    def is_of(self, cell: Cell) -> bool:
        """Whether it is of this very cell, not of one that its table had in that place before."""
        begins = self.overrides[: len(cell.overrides)] == cell.overrides
        return begins and self.pretraining in (None, cell.pretraining)

    def given(self, cell: Cell) -> tuple[str, ...]:
        """What the sweep was told: all but the cell's overrides and the folders of its needs."""
        rest = self.overrides[len(cell.overrides) :]
        for key in (gives.partition("=")[0] for need in cell.needs for gives in need.gives):
            # As ``Pretraining.given`` writes it; a run that is waited for has left no folder yet.
            if rest and rest[0].startswith(f"{key}='"):
                rest = rest[1:]
        return rest

    def result(self, output_dir: Path) -> dict[str, Any] | None:
        """The run's result, finished or failed, or None where there is none yet."""
        return read_result(output_dir / "runs" / self.run_id) if self.run_id else None

    def state(self, result: dict[str, Any] | None) -> State:
        """How the cell stands, given its run's result."""
        if self.needs:
            return "needs"
        if self.problem is not None:
            return "refused"
        if result is None:
            return "missing"
        return "finished" if is_finished(result) else "failed"


def index_path(output_dir: Path, table: str, scale: str) -> Path:
    """Where a table's records lie."""
    return output_dir / FOLDER / f"{table}.{scale}.json"


def read_records(path: Path) -> dict[tuple[str, str, int], Record]:
    """The records in an index by cell; none where it does not exist yet.

    Raises:
        ValueError: if the file is no index, or cannot be read.
    """
    try:
        cells = [{"pretraining": None, **cell} for cell in json.loads(path.read_text())["cells"]]
        records = [
            Record(**cell | {name: tuple(cell[name]) for name in LISTS if cell[name] is not None})
            for cell in cells
        ]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no index of a table ({error}); delete it") from error
    return {record.key: record for record in records}


def cells_known(table: Table, records: Mapping[tuple[str, str, int], Record]) -> list[Cell]:
    """The table's cells, and those of further seeds that a sweep was asked for."""
    further = sorted({seed for _, _, seed in records} - set(table.seeds))
    others = [cell for cell in table.cells(seeds=further) if cell.key in records]
    return [*table.cells(), *others]


def given_to_all(table: Table, records: Mapping[tuple[str, str, int], Record]) -> tuple[str, ...]:
    """What all cells of an index were given on a sweep's command line, in its order."""
    cells = cells_known(table, records)
    pairs = [(cell, records[cell.key]) for cell in cells if cell.key in records]
    given = [record.given(cell) for cell, record in pairs if record.is_of(cell)]
    return tuple(one for one in given[0] if all(one in each for each in given)) if given else ()


def write_records(
    output_dir: Path,
    table: Table,
    records: Iterable[Record],
    stays: Callable[[Record], bool] = lambda _: False,
) -> Path:
    """Puts records in place of the older ones of the same cells, but of those that stay.

    So a sweep over some rows, columns or seeds adds to what earlier ones did.
    """
    path = index_path(output_dir, table.name, table.scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        there = read_records(path)
        merged = there | {
            record.key: record
            for record in records
            if record.key not in there or not stays(there[record.key])
        }
        write_json(
            path,
            {
                "table": table.name,
                "scale": table.scale,
                "cells": [asdict(record) for record in merged.values()],
            },
        )
    return path
