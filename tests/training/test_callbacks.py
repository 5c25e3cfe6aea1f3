"""The CSV log of a resumed run, the noise of a step, and Ctrl-C."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest

from aaa.training.callbacks import ResumePoint, StopOnSignal, Stopwatch
from aaa.training.loggers import CsvLogger
from aaa.training.module import _noise_seed


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_csv_is_appended_to(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path)
    logger.log_metrics({"a": 1.0, "epoch": 0}, step=0)
    logger.save()
    logger.log_metrics({"b": 2.0}, step=1)
    logger.save()
    assert rows(logger.path) == [["step", "name", "value"], ["0", "a", "1.0"], ["1", "b", "2.0"]]


def test_csv_of_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    first = CsvLogger(tmp_path)
    for step in range(5):
        first.log_metrics({"a": float(step)}, step)
    first.save()
    with first.path.open("a") as file:
        file.write("5,a")  # a kill in the middle of a line
    resumed = CsvLogger(tmp_path)
    resumed.log_metrics({"a": 30.0}, step=3)
    resumed.save()
    assert [row[::2] for row in rows(first.path)[1:]] == [
        ["0", "0.0"], ["1", "1.0"], ["2", "2.0"], ["3", "30.0"],
    ]  # fmt: skip


def test_csv_that_a_power_cut_left_empty(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").touch()
    resumed = CsvLogger(tmp_path)
    resumed.log_metrics({"a": 30.0}, step=3)
    resumed.save()
    assert rows(resumed.path) == [["step", "name", "value"], ["3", "a", "30.0"]]


def test_time_goes_on_from_the_checkpoint() -> None:
    stopwatch = Stopwatch()
    stopwatch.load_state_dict({"seconds": 100.0})
    assert 100 < stopwatch.seconds < 101
    assert stopwatch.state_dict()["seconds"] == pytest.approx(stopwatch.seconds, abs=0.1)


def test_noise_differs_by_seed_process_and_step() -> None:
    seeds = {_noise_seed(s, r, b) for s in range(5) for r in range(4) for b in range(50)}
    assert len(seeds) == 5 * 4 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    stop = StopOnSignal(ResumePoint(tmp_path / "last.ckpt", every_steps=1, label={}))
    stop._on_signal(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop._on_signal(signal.SIGINT, None)
