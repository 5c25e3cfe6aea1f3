"""Tables from result files alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aaa.experiments.result import write_result
from aaa.experiments.table import build_tables, main, markdown, read_runs, show


def result(**changes: Any) -> dict[str, Any]:
    """A finished run's result with what tables read."""
    config: dict[str, Any] = {
        "pattern": {"_target_": "x"},
        "training": {"learning_rate": 1e-3},
        "data": {"path": "p", "revision": None, "max_length": 128},
        "sparsity": {"target": 0.7, "alpha": 10.0},
    }
    made = {
        "status": "finished", "run_id": "r", "cell_id": "c", "model": "tiny", "task": "cola",
        "pattern": "full", "seed": 0, "score": 50.0, "sparsity": 0.0, "sparsity_target": None,
        "headline": "matthews", "config": config,
    }  # fmt: skip
    made.update(changes)
    return made


def test_seeds_are_averaged_with_their_spread() -> None:
    runs = [
        result(run_id=str(seed), seed=seed, score=score) for seed, score in enumerate((40, 50, 60))
    ]
    [table] = build_tables(runs)
    assert table.lines() == [["full", "0.0 ± 0.0", "50.0 ± 10.0"]]
    assert table.seeds() == "3 seed(s) a cell"


def test_order_and_missing_cells() -> None:
    runs = [
        result(run_id="1", pattern="aaa", task="rte", cell_id="a", sparsity_target=0.7),
        result(run_id="2", pattern="local2", task="cola", cell_id="b"),
        result(run_id="3", pattern="full", task="rte", cell_id="c"),
    ]
    [table] = build_tables(runs)
    assert table.tasks == ("cola", "rte")
    assert [line[0] for line in table.lines()] == ["full", "local2", "aaa"]
    assert table.lines()[0][1:3] == ["–", "–"]


def test_settings_that_differ_make_rows_of_their_own() -> None:
    def learned(name: str, target: float, task: str) -> dict[str, Any]:
        made = result(run_id=name, cell_id=name, pattern="aaa", task=task, sparsity_target=target)
        made["config"]["sparsity"]["target"] = target
        return made

    runs = [learned("1", 0.7, "cola"), learned("2", 0.8, "cola"), learned("3", 0.7, "rte")]
    [table] = build_tables(runs)
    assert list(table.rows) == ["aaa, sparsity.target=0.7", "aaa, sparsity.target=0.8"]
    assert set(table.rows["aaa, sparsity.target=0.7"]) == {"cola", "rte"}


def test_the_same_settings_on_other_data_are_not_averaged() -> None:
    [table] = build_tables([result(run_id="1", cell_id="a"), result(run_id="2", cell_id="b")])
    assert list(table.rows) == ["full", "full (b)"]


def test_one_table_an_encoder() -> None:
    tables = build_tables([result(run_id="1"), result(run_id="2", model="minilm")])
    assert [table.title for table in tables] == ["tiny", "minilm"]


def test_markdown_and_terminal_show_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    [table] = build_tables([result(score=12.34, sparsity=0.5678)])
    assert "| full | 56.8 | 12.3 |" in markdown(table)
    show(table, Console(width=100))
    shown = capsys.readouterr().out
    assert "56.8" in shown
    assert "12.3" in shown


class TestCommand:
    def test_reads_runs_and_folders_and_writes_markdown(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("1", "2"):
            (tmp_path / "runs" / name).mkdir(parents=True)
            write_result(tmp_path / "runs" / name, result(run_id=name))
        (tmp_path / "runs" / "3").mkdir()
        write_result(tmp_path / "runs" / "3", {"status": "failed", "error": "x"})
        both = [str(tmp_path / "runs"), str(tmp_path / "runs" / "1")]
        assert main([*both, "--markdown", str(tmp_path / "new" / "t.md")]) == 0
        assert "2 seed(s)" in (tmp_path / "new" / "t.md").read_text()
        assert "2 seed(s)" in capsys.readouterr().out

    def test_nothing_to_show_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no folder"):
            read_runs([tmp_path / "nowhere"])
        with pytest.raises(ValueError, match="no finished run"):
            read_runs([tmp_path])

    def test_filters(self, tmp_path: Path) -> None:
        (tmp_path / "1").mkdir()
        write_result(tmp_path / "1", result())
        assert main([str(tmp_path), "--pattern", "full", "--task", "cola", "--model", "tiny"]) == 0
        with pytest.raises(ValueError, match="no finished run has"):
            main([str(tmp_path), "--task", "rte"])

    def test_needs_neither_torch_nor_hydra(self) -> None:
        code = "import sys, aaa.experiments.table; print({'torch', 'hydra'} & set(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "set()"
