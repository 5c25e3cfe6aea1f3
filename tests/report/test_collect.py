"""From spec, index and runs' directories to a measured table; every state a cell can be in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aaa.experiments.result import read_result
from aaa.experiments.tables.cells import Table
from aaa.experiments.tables.index import write_records
from aaa.experiments.tables.spec import load_table
from aaa.report.collect import CURVE_POINTS, collect
from aaa.report.measured import Run
from tests.report.fakes import metrics_of, record, write_run, write_sweep

PLACE = ("full", "rte")


@pytest.fixture
def spec() -> Table:
    return replace(load_table("4", "small"), seeds=(0, 1))


def the_run(spec: Table, output_dir: Path) -> Run:
    """The first seed of one cell."""
    return collect(spec, output_dir).cell(*PLACE).runs[0]


def test_figures_are_those_of_the_runs(spec: Table, tmp_path: Path) -> None:
    records = write_sweep(tmp_path, spec)
    table = collect(spec, tmp_path)
    assert len(table.runs()) == len(records) == 2 * 8 * 5
    results = {r.key: read_result(tmp_path / "runs" / str(r.run_id)) for r in records}
    for row, column, run in table.runs():
        assert run.seed is not None
        result = results[row.name, column.name, run.seed]
        assert result is not None
        assert run.run_id == result["run_id"]
        assert run.figures["score"] == result["score"]
        assert run.figures["rho"] == pytest.approx(100 * result["sparsity"])
        assert run.figures["row_share"] == pytest.approx(100 * np.mean(result["row_share"]))


def test_further_seeds_that_a_sweep_did_are_shown(spec: Table, tmp_path: Path) -> None:
    write_sweep(tmp_path, replace(spec, seeds=(0, 1, 7)))
    write_records(tmp_path, spec, [record(spec.cells(["full"], ["rte"], [9])[0])])
    table = collect(spec, tmp_path)
    assert [run.seed for run in table.cell(*PLACE).runs] == [0, 1, 7, 9]
    assert len(table.cell(*PLACE).values("score")) == 3
    assert [run.seed for run in table.cell("full", "cola").runs] == [0, 1, 7]


def test_what_the_spec_says_is_in_the_table(spec: Table, tmp_path: Path) -> None:
    table = collect(spec, tmp_path)
    assert table.title == "Table 4: Fixed sparse patterns against Adaptive Axis Attention"
    assert (table.scale, table.source) == ("small", "Wang et al. (2022), Table 4")
    assert [column.label for column in table.columns] == ["SST-2", "CoLA", "STS-B", "MRPC", "RTE"]
    learned = [row for row in table.rows if row.learned]
    assert [row.compared_with for row in learned] == [
        "local2_global2", "local2_global1_random1", "local1_global1_random2",
    ]  # fmt: skip
    assert table.cell("aaa_at_local2_global2", "stsb").paper == {"rho": 72, "score": 79}


def test_titles_name_numbered_tables_alone(tmp_path: Path) -> None:
    assert collect(load_table("figure_2"), tmp_path).title.startswith("Figure 2: Local")
    title = collect(load_table("breaking_bert_layers"), tmp_path).title
    assert title == "The neighbour mask in the first and in the last layers"


def test_curves_are_short_and_end_with_the_result(spec: Table, tmp_path: Path) -> None:
    write_sweep(tmp_path, replace(spec, seeds=(0,)), num_logged=90)
    run = the_run(spec, tmp_path)
    score, loss = run.curves["score"], run.curves["train_loss"]
    assert [step for step, _ in score] == [300, 600, 900]
    assert score[0][1] == pytest.approx(62 - 30 / 30, abs=0.01)
    assert len(loss) <= CURVE_POINTS
    stretch = -(-90 // CURVE_POINTS)
    assert loss[0] == (
        10 * stretch,
        pytest.approx(np.mean([1 / n for n in range(1, stretch + 1)]), abs=1e-3),
    )
    result = read_result(tmp_path / "runs" / str(run.run_id))
    assert result is not None
    assert result["steps"] == 600


def test_a_run_without_metrics_has_no_curves(spec: Table, tmp_path: Path) -> None:
    records = write_sweep(tmp_path, replace(spec, seeds=(0,)))
    for written in records:
        (tmp_path / "runs" / str(written.run_id) / "metrics.csv").unlink()
    assert the_run(spec, tmp_path).curves == {}


def test_a_search_has_the_curves_of_its_best_attempt(spec: Table, tmp_path: Path) -> None:
    cell = next(c for c in spec.cells() if (c.row, c.column) == PLACE)
    write_run(tmp_path, "attempt", metrics_of(62, 60, is_learned=True), score=62.0)
    search = write_run(tmp_path, "search", best_run="attempt", score=62.0)
    (search / "metrics.csv").unlink()
    write_records(tmp_path, spec, [record(cell, "search")])
    run = the_run(spec, tmp_path)
    assert run.run_id == "search"
    assert [step for step, _ in run.curves["score"]] == [200, 400, 600]
    assert len(run.curves["train_loss"]) == CURVE_POINTS


def test_facts_say_where_figures_come_from(spec: Table, tmp_path: Path) -> None:
    write_sweep(tmp_path, replace(spec, seeds=(0,)))
    facts = collect(spec, tmp_path).facts
    assert facts["commit"] == ["0123abc"]
    assert facts["split that is reported"] == ["validation"]
    assert facts["versions"] == ["torch 2.0"]
    assert facts["hours of all runs"] == [f"{40 * 36 / 3600:.2f}"]
    assert "device" in facts


class TestStates:
    def test_nothing_yet(self, spec: Table, tmp_path: Path) -> None:
        assert the_run(spec, tmp_path) == Run(0, "missing", None)

    def test_needs_and_refused(self, spec: Table, tmp_path: Path) -> None:
        cells = [c for c in spec.cells() if (c.row, c.column) == PLACE]
        records = [
            record(cells[0], needs=("aaa pretrain pattern=full",)),
            record(cells[1], "x", problem="sparsity.target=0.97 is out of reach"),
        ]
        write_records(tmp_path, spec, records)
        assert collect(spec, tmp_path).cell(*PLACE).runs == (
            Run(0, "needs", None, note="aaa pretrain pattern=full"),
            Run(1, "refused", "x", note="sparsity.target=0.97 is out of reach"),
        )

    def test_a_record_of_what_the_table_said_before_is_of_no_cell(
        self, spec: Table, tmp_path: Path
    ) -> None:
        """What a sweep adds to a cell's overrides does not make it another one."""
        write_sweep(tmp_path, spec)
        column = replace(spec.columns[0], overrides=(*spec.columns[0].overrides, "a=1"))
        changed = replace(spec, columns=(column, *spec.columns[1:]))
        runs = collect(changed, tmp_path).runs()
        assert {run.status for _, of, run in runs if of == runs[0][1]} == {"missing"}
        assert {run.status for _, of, run in runs if of != runs[0][1]} == {"finished"}
        cell = next(c for c in spec.cells() if (c.row, c.column) == PLACE)
        added = replace(record(cell, "abc"), overrides=(*cell.overrides, "model.path='x'", "b=2"))
        write_run(tmp_path, "abc")
        write_records(tmp_path, spec, [added])
        assert the_run(spec, tmp_path).run_id == "abc"

    @pytest.fixture
    def directory(self, spec: Table, tmp_path: Path) -> Path:
        """Of a run that the index knows."""
        cell = next(c for c in spec.cells() if (c.row, c.column) == PLACE)
        write_records(tmp_path, spec, [record(cell, "abc")])
        directory = tmp_path / "runs" / "abc"
        directory.mkdir(parents=True)
        return directory

    def test_failed(self, spec: Table, tmp_path: Path, directory: Path) -> None:
        directory.rmdir()
        write_run(tmp_path, "abc", status="failed", error="ValueError: no")
        assert the_run(spec, tmp_path) == Run(0, "failed", "abc", note="ValueError: no")

    def test_interrupted(self, spec: Table, tmp_path: Path, directory: Path) -> None:
        assert the_run(spec, tmp_path).status == "missing"
        (directory / "last.ckpt").touch()
        assert the_run(spec, tmp_path) == Run(0, "interrupted", "abc")

    @pytest.fixture
    def worker(self, directory: Path) -> Iterator[None]:
        """Another process that works in the run's directory."""
        code = (
            "import sys; from pathlib import Path; from aaa.experiments.lock import run_lock\n"
            f"with run_lock(Path({str(directory)!r})): print('working', flush=True); input()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        yield
        process.communicate("\n")

    @pytest.mark.usefixtures("worker")
    def test_running(self, spec: Table, tmp_path: Path, directory: Path) -> None:
        (directory / "last.ckpt").touch()
        assert the_run(spec, tmp_path) == Run(0, "running", "abc")

    def test_a_lock_that_nobody_holds_is_no_run(
        self, spec: Table, tmp_path: Path, directory: Path
    ) -> None:
        (directory / ".lock").touch()
        assert the_run(spec, tmp_path).status == "missing"
