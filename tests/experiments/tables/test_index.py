"""Which run does which cell, as kept for whoever shows the table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from aaa.experiments.result import write_result
from aaa.experiments.tables.index import Record, index_path, read_records, write_records
from aaa.experiments.tables.spec import load_table


def record(row: str, seed: int = 0, run_id: str | None = "0123456789ab") -> Record:
    return Record(row, "cola", seed, ("pattern=full", f"seed={seed}"), run_id)


def test_later_records_replace_those_of_their_cells_alone(tmp_path: Path) -> None:
    table = load_table("4")
    write_records(tmp_path, table, [record("full"), record("full", 1), record("aaa")])
    path = write_records(tmp_path, table, [record("full", run_id="other")])
    assert path == index_path(tmp_path, "table_4", "demo")
    found = read_records(path)
    assert found[("full", "cola", 0)].run_id == "other"
    assert found[("full", "cola", 1)] == record("full", 1)
    assert len(found) == 3


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    table = load_table("4")
    with ThreadPoolExecutor(8) as pool:
        for seed in range(16):
            pool.submit(write_records, tmp_path, table, [record("full", seed)])
    assert len(read_records(index_path(tmp_path, "table_4", "demo"))) == 16


def test_states(tmp_path: Path) -> None:
    assert record("full").result(tmp_path) is None
    assert record("full").state(None) == "missing"
    directory = tmp_path / "runs" / "0123456789ab"
    directory.mkdir(parents=True)
    for status in ("finished", "failed"):
        write_result(directory, {"status": status})
        assert record("full").state(record("full").result(tmp_path)) == status
    needing = Record("full", "cola", 0, (), needs=("aaa pretrain pattern=full",))
    assert needing.state(needing.result(tmp_path)) == "needs"
    assert Record("full", "cola", 0, (), problem="out of reach").state(None) == "refused"


def test_a_record_is_of_its_cell_while_that_starts_from_the_same_encoder(tmp_path: Path) -> None:
    """Its overrides tell only the folder of that; an index of before does not know more."""
    table = load_table("3")
    cell = next(cell for cell in table.cells() if cell.needs)
    [need] = cell.needs
    assert cell.pretraining == (need.command,)
    other = replace(cell, needs=(need.also(("training.max_steps=7",)),))
    older = Record(*cell.key, (*cell.overrides, "pattern.source='x'"))
    path = write_records(tmp_path, table, [replace(older, pretraining=cell.pretraining)])
    record = read_records(path)[cell.key]
    assert [record.is_of(cell), record.is_of(other)] == [True, False]
    assert [older.is_of(cell), older.is_of(other)] == [True, True]


def test_what_is_no_index_is_said(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    assert read_records(path) == {}
    for text in ("{", "{}", '{"cells": [{"row": "full"}]}', "[]"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"index\.json is no index of a table"):
            read_records(path)
