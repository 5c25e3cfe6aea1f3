"""Tables over any runs, from their result files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aaa.report.measured import Measured
from aaa.report.runs import read_runs, tables_of
from aaa.report.wording import Wording
from tests.report.fakes import result, write_run


def tables(*results: dict[str, Any]) -> list[Measured]:
    return tables_of([(made, Path("nowhere")) for made in results])


def rows(table: Measured) -> list[str]:
    return [row.name for row in table.rows]


def test_seeds_are_averaged_with_their_spread() -> None:
    [table] = tables(
        *(result(run_id=str(s), seed=s, score=score) for s, score in ((2, 60), (0, 40), (1, 50)))
    )
    shown = Wording(table).cell("full", "cola")
    assert shown.main.value == "50.0 ± 10.0"
    assert [part.value for part in shown.others] == ["0.0"]
    assert [run.seed for run in table.cell("full", "cola").runs] == [0, 1, 2]


def test_order_and_missing_cells() -> None:
    [table] = tables(
        result(run_id="1", pattern="aaa", task="rte", cell_id="a", sparsity_target=0.7),
        result(run_id="2", pattern="local2", task="cola", cell_id="b"),
        result(run_id="3", pattern="full", task="rte", cell_id="c"),
    )
    assert [column.name for column in table.columns] == ["cola", "rte"]
    assert rows(table) == ["full", "local2", "aaa"]
    assert [row.learned for row in table.rows] == [False, False, True]
    assert Wording(table).cell("full", "cola").main_text == "–"


def test_settings_that_differ_make_rows_of_their_own() -> None:
    def learned(name: str, target: float, task: str) -> dict[str, Any]:
        made = result(run_id=name, cell_id=name, pattern="aaa", task=task, sparsity_target=target)
        made["config"]["sparsity"]["target"] = target
        return made

    [table] = tables(
        learned("1", 0.7, "cola"), learned("2", 0.8, "cola"), learned("3", 0.7, "rte")
    )
    assert rows(table) == ["aaa, sparsity.target=0.7", "aaa, sparsity.target=0.8"]
    assert len(table.cell("aaa, sparsity.target=0.7", "rte").runs) == 1


def test_the_same_settings_on_other_data_are_not_averaged() -> None:
    [table] = tables(result(run_id="1", cell_id="a"), result(run_id="2", cell_id="b"))
    assert rows(table) == ["full", "full (b)"]


def test_one_table_an_encoder() -> None:
    titles = [t.title for t in tables(result(run_id="1"), result(run_id="2", model="minilm"))]
    assert titles == ["Runs of tiny", "Runs of minilm"]


def test_folders_and_single_runs_are_read_once(tmp_path: Path) -> None:
    one = write_run(tmp_path, "1")
    write_run(tmp_path, "2")
    write_run(tmp_path, "3", status="failed", error="x")
    (tmp_path / "runs" / "empty").mkdir()
    found = read_runs([tmp_path / "runs", one])
    assert sorted(made["run_id"] for made, _ in found) == ["1", "2"]
    assert {place.name for _, place in found} == {"1", "2"}


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="no finished run"):
        read_runs([tmp_path])
