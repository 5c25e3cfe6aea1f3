"""Runs that are stopped in the middle and started again."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from aaa.experiments.plan import make_plan
from aaa.experiments.result import read_result
from aaa.experiments.run import run
from tests.experiments.conftest import ONE_THREAD, Compose, command
from tests.experiments.figures import metrics_csv, numbers, reached


@pytest.mark.slow
class TestStopped:
    """A run that is stopped ends with the numbers of one that never was."""

    LONG = ("training.max_steps=40", "run.checkpoint_every=5")

    def start(self, overrides: list[str], directory: Path, steps: int) -> subprocess.Popen[bytes]:
        """Starts a run and waits until it has left a checkpoint and gone beyond ``steps``."""
        process = subprocess.Popen(command(overrides), env=ONE_THREAD, stderr=subprocess.DEVNULL)
        until = time.time() + 120
        while time.time() < until and process.poll() is None:
            if (directory / "last.ckpt").exists() and reached(directory) >= steps:
                return process
            time.sleep(0.01)
        raise AssertionError(f"the run ended with {process.poll()} before step {steps}")

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_and_resumed(
        self,
        compose: Compose,
        small_overrides: list[str],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        number: signal.Signals,
    ) -> None:
        caplog.set_level(logging.INFO)
        torch.set_num_threads(1)
        undisturbed = run(compose(*self.LONG, f"run.output_dir={tmp_path / 'undisturbed'}"))
        overrides = [*small_overrides, *self.LONG]
        directory = make_plan(compose(*self.LONG)).directory
        process = self.start(overrides, directory, steps=7)
        process.send_signal(number)
        code = process.wait(60)
        assert code == (-number if number == signal.SIGKILL else 128 + number)
        assert read_result(directory) is None
        assert run(compose(*self.LONG)).status == "finished"
        assert "resuming from" in (directory / "run.log").read_text()
        assert numbers(read_result(directory)) == numbers(undisturbed.result)
        rows = metrics_csv(directory)
        assert [row for row in rows if "train/loss" in row] == [
            row for row in metrics_csv(undisturbed.directory) if "train/loss" in row
        ]
        assert not (directory / "last.ckpt").exists()

    def test_by_sigkill_just_after_an_evaluation(
        self,
        compose: Compose,
        small_overrides: list[str],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Its checkpoint is from before: the evaluation is made again, and changes nothing."""
        caplog.set_level(logging.INFO)
        torch.set_num_threads(1)
        steps = ["training.max_steps=40", "run.checkpoint_every=21"]  # evaluated after 21 steps
        undisturbed = run(compose(*steps, f"run.output_dir={tmp_path / 'undisturbed'}"))
        directory = make_plan(compose(*steps)).directory
        process = self.start([*small_overrides, *steps], directory, steps=22)
        process.kill()
        process.wait(60)
        assert run(compose(*steps)).status == "finished"
        assert "resuming from" in (directory / "run.log").read_text()
        assert numbers(read_result(directory)) == numbers(undisturbed.result)

    def test_a_stopped_multirun_starts_no_further_job(
        self, compose: Compose, small_overrides: list[str], tmp_path: Path
    ) -> None:
        directory = make_plan(compose(*self.LONG)).directory
        sweep = ["-m", *small_overrides, *self.LONG, "pattern=aaa,full"]
        process = self.start(sweep, directory, steps=7)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
        assert [path.name for path in (tmp_path / "outputs" / "runs").iterdir()] == [
            directory.name
        ]
