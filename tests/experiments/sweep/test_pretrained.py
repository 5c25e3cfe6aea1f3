"""Cells that start from pre-training runs: what is told of these, and when they are done."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aaa.experiments.lock import is_being_run, run_lock
from aaa.experiments.sweep import pretrain as pretrain_module
from aaa.experiments.sweep.estimate import Load
from aaa.experiments.tables.index import index_path, read_records
from tests.experiments.sweep.conftest import TABLE, Said

Sweep = Callable[..., Said]
MakeTable = Callable[..., str]


@pytest.fixture
def pretrained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., list[tuple[str, ...]]]:
    """Stands for ``aaa pretrain``: done once it was called, unless it fails with ``code``.

    As the command does, it ends well without any work where another process has the run's lock.
    """
    directory = tmp_path / "a run"
    directory.mkdir()

    def make(code: int = 0) -> list[tuple[str, ...]]:
        done: list[tuple[str, ...]] = []

        def find(overrides: tuple[str, ...]) -> SimpleNamespace:
            folder = tmp_path / "a model" if overrides in done else None
            return SimpleNamespace(
                directory=directory, model_folder=folder, command=shlex.join(words(overrides)),
                load=Load("bert_base", steps=10**6, batch=32, devices=8, tokens=128),
            )  # fmt: skip

        def call(command: list[str]) -> SimpleNamespace:
            assert command[1:4] == ["-m", "aaa", "pretrain"]
            if not code and not is_being_run(directory):
                done.append(tuple(command[4:]))
            return SimpleNamespace(returncode=code)

        module = SimpleNamespace(find_pretraining=find)
        monkeypatch.setitem(sys.modules, "aaa.experiments.pretrained_runs", module)
        monkeypatch.setattr(pretrain_module.subprocess, "run", call)
        return done

    return make


def words(overrides: tuple[str, ...]) -> list[str]:
    return ["aaa", "pretrain", *overrides]


PRETRAINED = {
    "rows": {"full": {"overrides": ["pattern=full"], "pretrained": {"pattern": "full"}}},
    "scales": {"demo": {"overrides": ["scale=demo"], "pretrain": ["scale=demo"]}},
}


def test_a_cell_starts_from_its_pre_training(
    table: MakeTable, sweep: Sweep, outputs: Path, pretrained: Callable[..., Any]
) -> None:
    done = pretrained()
    command = [f"+table={table(**PRETRAINED)}", "columns=cola", "pretrain.data.path=a wiki"]
    code, said = sweep(*command)
    need = f"aaa pretrain scale=demo pattern=full 'data.path=a wiki' run.output_dir={outputs}"
    assert (code, f"1 cells need: {need}" in said) == (0, True)
    assert "1 pre-training runs come first (pretrain=true does them)\n" in said
    record = read_records(index_path(outputs, "mine", "demo"))["full", "cola", 0]
    assert record.pretraining == ("aaa pretrain scale=demo pattern=full",)
    code, said = sweep(*command, "pretrain=true", "model=minilm")
    assert f"pre-training 1 of 1: {need}" in said
    assert said.index("1 pre-training runs come first") < said.index("pre-training 1 of 1")
    assert said.index("1 cells wait for them") < said.index("pre-training 1 of 1")
    assert done == [tuple(shlex.split(need)[2:])]
    # The folder is a fake, which the cell is told when it looks at the model there.
    assert (code, "there is no folder" in said, "/a model" in said) == (2, True, True)


def test_a_pre_training_that_makes_no_sense_is_the_problem_of_its_cells_alone(
    table: MakeTable, sweep: Sweep, outputs: Path
) -> None:
    rows = TABLE["rows"] | {
        "copied": {
            "overrides": ["pattern=full"],
            "pretrained": {"pattern": "diagonal_fixed_global1"},
        },
        "typo": {"overrides": ["pattern=ful"]},
    }
    code, said = sweep(f"+table={table(rows=rows)}", "columns=cola", "dry_run=true")
    assert code == 2
    told = "pattern 'ful' is unknown, did you mean full? known: aaa, aaa_columns, "
    assert "refused copied · cola · seed 0: mine, row copied, pretrained: pattern" in said
    assert f"refused typo · cola · seed 0: {told}" in said
    assert "search path" not in said
    assert "would run fixed · cola · seed 0" in said
    record = read_records(index_path(outputs, "mine", "demo"))[("copied", "cola", 0)]
    assert record.state(None) == "refused"


def test_the_hours_of_pre_training_and_of_what_waits_for_it_are_told_first(
    sweep: Sweep,
) -> None:
    code, said = sweep("+table=1", "scale=paper", "dry_run=true", "pretrain=true")
    assert code == 0, said
    assert "48 cells, 0 runs: 48 cells wait for something" in said
    # 3 x 1e6 steps and 5e4 of one that goes on, x 8 x 32 x 128 tokens
    assert "4 pre-training runs come first: about 1,416 GPU hours, by 6 FLOPs" in said
    # 48 x 30,000 x 4 x 32 x 40 tokens
    assert "48 cells wait for them: about 104 GPU hours, by 6 FLOPs" in said


def test_a_mistake_in_cells_that_wait_is_told_before_pre_training(
    table: MakeTable, sweep: Sweep, pretrained: Callable[..., Any]
) -> None:
    done = pretrained()
    command = [f"+table={table(**PRETRAINED)}", "columns=cola", "pretrain=true"]
    code, said = sweep(*command, "training.lerning_rate=1")
    assert (code, done, "lerning_rate" in said) == (2, [], True)


@pytest.mark.parametrize("begun_before", [True, False])
def test_a_pre_training_that_another_process_does_is_waited_for_and_taken_over(
    table: MakeTable, sweep: Sweep, pretrained: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, begun_before: bool,
) -> None:  # fmt: skip
    done, other = pretrained(), run_lock(tmp_path / "a run")
    call = pretrain_module.subprocess.run
    if begun_before:
        other.acquire()

    def begin_first(command: list[str]) -> Any:
        if len(waits) == 0:
            other.acquire()
        return call(command)

    def end(seconds: float) -> None:
        waits.append(seconds)
        other.release(force=True)

    waits: list[float] = []
    monkeypatch.setattr(pretrain_module.subprocess, "run", begin_first)
    monkeypatch.setattr(pretrain_module, "time", SimpleNamespace(sleep=end))
    command = [f"+table={table(**PRETRAINED)}", "columns=cola", "pretrain=true"]
    _, said = sweep(*command, "model=minilm")
    assert (len(done), len(waits)) == (1, 1)
    assert said.count("another process is doing it and is waited for") == 1
    assert "cells need" not in said


def test_a_pre_training_that_fails_leaves_its_cells_out(
    table: MakeTable, sweep: Sweep, pretrained: Callable[..., Any]
) -> None:
    pretrained(code=1)
    command = [f"+table={table(**PRETRAINED)}", "columns=cola", "pretrain=true"]
    code, said = sweep(*command)
    assert "it ended with exit code 1; the cells that need it are left out" in said
    assert (code, "1 cells need: aaa pretrain" in said) == (0, True)
    pretrained(code=130)
    assert sweep(*command)[0] == 130
