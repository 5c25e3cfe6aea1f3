"""Sweeps in this process: what is run, skipped, refused, said and written down."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aaa.experiments import login
from aaa.experiments import run as run_module
from aaa.experiments.tables.index import index_path, read_records
from tests.experiments.folders import glue_folder
from tests.experiments.sweep.conftest import TABLE, Said, endings, results

Sweep = Callable[..., Said]
MakeTable = Callable[..., str]


def test_runs_the_cells_of_a_table_once(table: MakeTable, sweep: Sweep, outputs: Path) -> None:
    path = table()
    code, said = sweep(f"+table={path}", "columns=stsb")
    assert code == 0, said
    assert "mine at scale demo: 2 cells, 2 runs: 2 to do" in said
    assert "[1/2] fixed · stsb · seed 0: spearman " in said
    assert f"next: aaa table {path} --scale demo" in said
    records = read_records(index_path(outputs, "mine", "demo"))
    assert set(records) == {("fixed", "stsb", 0), ("aaa", "stsb", 0)}
    for record in records.values():
        result = record.result(outputs)
        assert record.state(result) == "finished"
        assert result is not None
        assert result["pattern"] == {"fixed": "local2_global2", "aaa": "aaa"}[record.row]
    files = {path: path.stat().st_mtime_ns for path in outputs.glob("runs/*/*")}
    code, said = sweep(f"+table={path}", "columns=stsb")
    assert (code, "2 runs: 2 finished" in said) == (0, True)
    assert files == {path: path.stat().st_mtime_ns for path in outputs.glob("runs/*/*")}
    assert endings(outputs) == ["finished"] * 2  # no further job was started
    code, said = sweep(f"+table={path}", "dry_run=true", "columns=stsb,cola", "rows=fixed")
    assert "2 runs: 1 finished, 1 to do" in said
    assert "would run fixed · cola · seed 0: scale=demo" in said
    assert "about" in said  # reckoned from the finished run
    assert len(read_records(index_path(outputs, "mine", "demo"))) == 3  # added, none lost


def test_a_dry_run_takes_no_result_out_of_the_index(
    table: MakeTable, sweep: Sweep, outputs: Path
) -> None:
    """It adds what has none, and what the table no longer asks for gives way."""
    command = [f"+table={table()}", "columns=cola"]
    sweep(*command, "rows=fixed")
    index = index_path(outputs, "mine", "demo")
    before = read_records(index)
    code, said = sweep(*command, "training.max_steps=5", "dry_run=true")
    assert (code, "2 cells, 2 runs: 2 to do" in said) == (0, True)
    after = read_records(index)
    assert after["fixed", "cola", 0] == before["fixed", "cola", 0]
    assert "training.max_steps=5" in after["aaa", "cola", 0].overrides
    index.unlink()  # as where runs were copied from elsewhere
    sweep(*command, "dry_run=true")
    assert read_records(index)["fixed", "cola", 0] == before["fixed", "cola", 0]
    rows = {"fixed": {"overrides": ["pattern=local2"]}}
    sweep(f"+table={table(rows=rows)}", "columns=cola", "dry_run=true")
    changed = read_records(index)["fixed", "cola", 0]
    assert changed.run_id not in (None, before["fixed", "cola", 0].run_id)
    sweep(*command, "training.max_steps=5", "rows=fixed")
    assert read_records(index)["fixed", "cola", 0] != before["fixed", "cola", 0]


def test_a_link_that_leads_elsewhere_makes_other_runs(
    sweep: Sweep, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of runs are kept by their overrides, in which such a link is the same."""
    folders = [
        glue_folder(tmp_path / name, "cola", ["sentence"], text)
        for name, text in (("one", "this is a text"), ("other", "here is another"))
    ]
    monkeypatch.chdir(tmp_path)
    command = ["task=cola", "model=tiny", "pattern=local2", "training.max_steps=2", "seed=0"]
    for folder in (*folders, folders[0]):
        Path("current").unlink(missing_ok=True)
        Path("current").symlink_to(folder)
        code, said = sweep(*command, "training.batch_size=8", "data.path=current", "dry_run=true")
        assert code == 0, said
    kept = json.loads((outputs / "cache" / "run_ids.json").read_text())["runs"]
    assert len({one["named"]["run_id"] for one in kept.values()}) == 2


def test_any_name_of_a_row_will_do(table: MakeTable, sweep: Sweep, outputs: Path) -> None:
    names = ("local (2), größer", "512")
    rows = {name: {"overrides": ["pattern=local2"]} for name in names}
    columns = {"64": {"overrides": ["task=demo_acceptability"]}}
    path = table(rows=rows, columns=columns)
    code, said = sweep(f"+table={path}", "columns=64")
    assert code == 0, said
    assert [result["config"]["names"]["row"] for result in results(outputs).values()] == [names[0]]
    code, said = sweep(f"+table={path}", "columns=64", "rows=512")
    assert (code, "1 runs: 1 finished" in said) == (0, True), said


def test_epochs_beside_steps_are_refused(table: MakeTable, sweep: Sweep) -> None:
    code, said = sweep(f"+table={table()}", "training.max_epochs=2")
    assert code == 2
    assert "training.max_epochs=2 would do nothing beside training.max_steps=3" in said


def test_cells_that_share_a_run_do_it_once(table: MakeTable, sweep: Sweep, outputs: Path) -> None:
    rows = {name: {"overrides": ["pattern=local2"]} for name in ("one", "other")}
    code, said = sweep(f"+table={table(rows=rows)}", "columns=cola")
    assert (code, "2 cells, 1 runs: 1 to do" in said) == (0, True)
    assert len(results(outputs)) == 1


def test_a_failure_is_told_at_once_and_does_no_harm(
    table: MakeTable, sweep: Sweep, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = run_module._work

    def fail_fixed(plan: Any, prepared: Any) -> Any:
        if plan.config.names.pattern == "local2_global2":
            raise RuntimeError("no such luck")
        return work(plan, prepared)

    command = [f"+table={table()}", "columns=cola"]
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_work", fail_fixed)
        code, said = sweep(*command)
    assert code == 1
    [failed] = [run_id for run_id, r in results(outputs).items() if r["status"] == "failed"]
    line = "[1/2] fixed · cola · seed 0: failed: RuntimeError: no such luck; see "
    assert f"{line}{outputs / 'runs' / failed / 'run.log'}" in said
    assert "[2/2] aaa · cola · seed 0: matthews" in said
    code, said = sweep(*command)
    assert (code, "1 failed before (retry_failed=true tries again)" in said) == (1, True)
    code, said = sweep(*command, "retry_failed=true")
    assert (code, "2 finished" in said) == (0, True)


def test_what_is_refused_is_told_and_the_rest_done(sweep: Sweep, outputs: Path) -> None:
    small = TABLE["scales"]["demo"]["overrides"][1:]
    code, said = sweep(*small, "pattern=aaa", "sparsity.target=0.3,0.99,1.5")
    assert code == 2
    assert "sparsity.target=0.99: refused: sparsity.target=0.99 is out of reach" in said
    told = "refused sparsity.target=1.5: sparsity.target is a share of closed cells in [0, 1)"
    assert said.index(told) < said.index("[1/2]")  # before any work, and in full once
    assert said.count("is a share of closed cells") == 1
    assert "1 cells refused: sparsity.target=1.5\n" in said
    assert "1 finished" in said
    assert f"next: aaa table {outputs / 'runs'}" in said


def test_a_dry_run_tells_what_is_refused(table: MakeTable, sweep: Sweep) -> None:
    rows = TABLE["rows"] | {"typo": {"overrides": ["pattern=aaa", "training.steps=3"]}}
    code, said = sweep(f"+table={table(rows=rows)}", "columns=cola", "dry_run=true")
    assert code == 2
    assert "3 cells, 2 runs: 2 to do, 1 cells refused" in said
    assert "refused typo · cola · seed 0: training.steps is unknown" in said
    assert "would run fixed · cola · seed 0" in said


def test_what_a_cell_needs_is_said_and_no_error(
    table: MakeTable, sweep: Sweep, outputs: Path
) -> None:
    rows = {
        "syntax": {"overrides": ["pattern=syntax"], "requires": ["data.parses"]},
        "full": {"overrides": ["pattern=full"]},
    }
    code, said = sweep(f"+table={table(rows=rows)}", "columns=cola")
    assert code == 0
    assert "1 cells need: data.parses=... on the command line" in said
    record = read_records(index_path(outputs, "mine", "demo"))[("syntax", "cola", 0)]
    assert (record.run_id, record.state(None)) == (None, "needs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+table=9"], "table '9' is unknown; known: breaking_bert_degrees"),
        (["+table=4", "scale=huge"], "huge"),
        (["+table=4", "rows=nobody"], "row 'nobody' is unknown; known: full"),
        (["+table=4", "columns=mnli"], "column 'mnli' is unknown; known: cola, stsb, rte"),
        (["+table=4", "task=demo_polarity"], "task=demo_polarity: the table says which; columns="),
        (["+table=4", "seed=3"], "seed=3: the table says which; seeds="),
        (["+table=4", "training.max_steps=1,2"], "training.max_steps=1,2: a table has its own"),
        (["rows=full", "seed=0,1"], "rows= is a part of a table: give +table=NAME as well"),
        (["+table=4", "dry_run=maybe"], "dry_run must be true or false, not 'maybe'"),
        (["+table=4", "pretrain=flase"], "pretrain must be true or false, not 'flase'"),
        (["seed=0,1", "retry_failed=1"], "retry_failed must be true or false, not 1"),
        (["+table=4", "training.lerning_rate=1"], "lerning_rate"),
        (["+table=4", "data.path=./nowhere", "columns=cola"], "data.path=./nowhere would"),
    ],
)
def test_what_makes_no_sense_is_said_before_any_work(
    sweep: Sweep, outputs: Path, arguments: list[str], message: str
) -> None:
    code, said = sweep(*arguments)
    assert code == 2, said
    assert message in said
    assert "Traceback" not in said
    assert not (outputs / "runs").exists()


def test_no_cell_is_begun_that_could_not_log(
    sweep: Sweep, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "_has_key", lambda: False)
    code, said = sweep("seed=0,1", "logger=wandb", "logger.mode=online")
    assert (code, said.count("wandb login"), (outputs / "runs").exists()) == (2, 1, False)


def test_a_signal_in_this_process_ends_the_sweep_with_a_checkpoint(
    table: MakeTable, sweep: Sweep, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aaa.training.callbacks import Heartbeat

    def interrupt(*_: object) -> None:
        if not interrupted:
            os.kill(os.getpid(), signal.SIGTERM)
            interrupted.append(True)

    interrupted: list[bool] = []
    command = [f"+table={table()}", "rows=fixed"]
    with monkeypatch.context() as patch:
        patch.setattr(Heartbeat, "on_train_batch_end", interrupt)
        code, said = sweep(*command)
    assert code == 128 + signal.SIGTERM
    assert "stopped; the same command goes on from here" in said
    [checkpoint] = outputs.glob("runs/*/last.ckpt")  # the second cell was not begun
    assert endings(outputs) == ["interrupted"]
    code, said = sweep(*command)
    assert (code, "2 finished" in said) == (0, True)
    assert "resuming from" in (checkpoint.parent / "run.log").read_text()


def test_the_names_of_runs_are_kept_until_something_changes(
    table: MakeTable, sweep: Sweep, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aaa.experiments.sweep.run_ids import RunIds

    named: list[Any] = []
    name = RunIds._name

    def counted(self: RunIds, overrides: Any) -> Any:
        named.append(overrides)
        return name(self, overrides)

    monkeypatch.setattr(RunIds, "_name", counted)
    command = [f"+table={table()}", "dry_run=true"]
    first = sweep(*command)
    assert len(named) == 4
    assert sweep(*command) == first
    assert len(named) == 4
    sweep(*command, "training.max_steps=2")
    assert len(named) == 8
    kept = outputs / "cache" / "run_ids.json"
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps(content | {"code": "of an older version"}))
    assert sweep(*command) == first
    assert len(named) == 12
    kept.write_text("{")
    assert sweep(*command) == first
