"""A job among signals: none of them may get past it to the launcher."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aaa.experiments.sweep import job
from aaa.experiments.sweep.session import Session


class StoppedLate(Session):
    """Is asked before the job is over, and answers when it is."""

    job_is_over = threading.Event()

    @property
    def stopped(self) -> bool:
        self.job_is_over.wait(5)
        time.sleep(0.05)
        return True


@pytest.fixture(autouse=True)
def received() -> Iterator[list[int]]:
    """What gets to the conductor of a sweep whose jobs run in its own process."""
    numbers: list[int] = []
    both = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda got, _: numbers.append(got)) for number in both]
    yield numbers
    for number, handler in zip(both, previous, strict=True):
        signal.signal(number, handler)


def test_a_sweep_that_ends_while_the_job_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, received: list[int]
) -> None:
    monkeypatch.setattr(job, "POLL_SECONDS", 0.01)
    session = StoppedLate(tmp_path)
    with job._stopped_with(session):
        time.sleep(0.1)  # so that the question is on its way
        session.job_is_over.set()
    assert not received


def test_ctrl_c_stops_the_job_and_not_what_runs_it(tmp_path: Path, received: list[int]) -> None:
    with job._stopped_with(Session(tmp_path)):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("goes on")
    assert not received
    os.kill(os.getpid(), signal.SIGINT)
    assert received == [signal.SIGINT]


def test_ctrl_c_as_the_job_ends_stops_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, received: list[int]
) -> None:
    join = threading.Thread.join

    def join_late(thread: threading.Thread) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        join(thread)

    with job._stopped_with(Session(tmp_path)):
        monkeypatch.setattr(threading.Thread, "join", join_late)
    assert received == [signal.SIGINT]
