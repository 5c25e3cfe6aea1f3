"""Runs on two devices: the figures of one, and one end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from aaa.experiments import run as run_module
from aaa.experiments.plan import make_plan
from aaa.experiments.result import read_result
from aaa.experiments.run import run
from tests.experiments.conftest import ONE_THREAD, WILD, Compose, command

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
class TestTwoProcesses:
    def test_evaluate_and_end_like_one(self, compose: Compose, tmp_path: Path) -> None:
        """An evaluation set that two processes cannot share evenly gives the same figures."""
        overrides = ["pattern=local2_global2", "task.num_validation=29", "training.max_steps=4"]
        one = run(compose(*overrides, "training.batch_size=16")).result
        two = run(compose(*overrides, "training.batch_size=8", "training.devices=2")).result
        assert one is not None
        assert two is not None
        assert two["status"] == "finished", two
        assert two["hardware"]["processes"] == 2
        # The same global batches, no dropout in the tiny encoder: only sums are ordered otherwise.
        assert two["metrics"]["validation"]["spearman"] == pytest.approx(
            one["metrics"]["validation"]["spearman"], abs=1e-6
        )
        assert two["sparsity"] == pytest.approx(one["sparsity"], abs=1e-9)
        assert json.dumps(two)

    @pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["workers", "torchrun"])
    def test_the_second_does_not_end_the_first(
        self, small_overrides: list[str], tmp_path: Path, launcher: tuple[str, ...]
    ) -> None:
        """The first exports and writes the result when the second has nothing left to do."""
        slow = "logger._target_=tests.experiments.slow_ending.slow_logger"
        overrides = [*small_overrides, "training.devices=2", "run.accelerator=cpu", slow]
        python, *rest = command(overrides)
        done = subprocess.run(
            [python, *launcher, *rest], env=ONE_THREAD, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        [directory] = (tmp_path / "outputs" / "runs").iterdir()
        result = read_result(directory)
        assert result is not None
        assert result["status"] == "finished"
        assert done.stderr.count("next: aaa table") == 1

    def test_the_second_lets_the_first_say_why_it_failed(
        self, small_overrides: list[str], tmp_path: Path
    ) -> None:
        slow = "logger._target_=tests.experiments.slow_ending.slow_logger"
        overrides = [*small_overrides, "training.devices=2", "run.accelerator=cpu", slow]
        done = subprocess.run(command([*overrides, *WILD]), env=ONE_THREAD, capture_output=True)
        assert done.returncode == 1
        [directory] = (tmp_path / "outputs" / "runs").iterdir()
        result = read_result(directory)
        assert result is not None
        assert "the gradient is nan" in result["error"]

    def test_in_a_multirun_each_job_has_one_directory(
        self, small_overrides: list[str], tmp_path: Path
    ) -> None:
        sweep = ["-m", *small_overrides, "training.devices=2", "pattern=full,local2"]
        done = subprocess.run(command(sweep), env=ONE_THREAD, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        results = [read_result(path) for path in (tmp_path / "outputs" / "runs").iterdir()]
        assert sorted(result["pattern"] for result in results if result) == ["full", "local2"]
        assert len(list((tmp_path / "outputs" / "sweeps").iterdir())) == 1


def test_what_failed_in_another_process_is_in_the_result(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one hears no more than that its connection is gone."""
    plan = make_plan(compose())
    plan.directory.mkdir(parents=True)
    monkeypatch.setattr(run_module, "process_rank", lambda: 1)
    run_module._leave_word(plan.directory, KeyError("pool"))
    monkeypatch.undo()
    failure = run_module._failure(plan, RuntimeError("Connection closed by peer"), 1.0)
    assert failure["error"].startswith("KeyError: 'pool' (in process 1; here RuntimeError: Conn")
    assert "process 1:\n" in failure["traceback"]
    assert not list(plan.directory.glob("failed.*"))
