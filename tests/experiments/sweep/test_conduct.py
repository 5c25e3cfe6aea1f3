"""What becomes of jobs whose process dies, that others do, or that a signal cuts short."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from aaa.experiments.result import PROGRESS, write_json, write_result
from aaa.experiments.sweep import conduct as conduct_module
from aaa.experiments.sweep.conduct import Conductor, Job, Launch
from aaa.experiments.sweep.display import SweepDisplay, duration
from aaa.experiments.sweep.session import Ended, Session

DONE = {"status": "finished", "headline": "f1", "score": 50.0, "sparsity": 0.5}

Begin = Callable[..., Conductor]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct_module, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(conduct_module, "WATCH_SECONDS", 0.01)


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session.begin(tmp_path / "sweep")


@pytest.fixture
def begin(tmp_path: Path, session: Session, said: io.StringIO) -> Begin:
    """A conductor of jobs a, b, ... over a launcher."""

    def make(launch: Launch, names: str, max_batch_size: int | None = None) -> Conductor:
        for name in names:
            (tmp_path / "runs" / name).mkdir(parents=True)
        jobs = [Job(f"job {name}", (name,), name) for name in names]
        display = SweepDisplay(Console(file=said, width=200), len(jobs), 0)
        return Conductor(jobs, launch, session, tmp_path / "runs", display, max_batch_size)

    return make


class Fake:
    """A launcher: ``do`` says how a job ends; None for one whose process dies, with the pool."""

    def __init__(self, session: Session, runs: Path, do: Callable[[str], Ended | None]) -> None:
        self.session, self.runs, self.do = session, runs, do
        self.launched: list[str] = []

    def __call__(self, batch: Sequence[Sequence[str]], first: int) -> None:
        self.launched.append("".join(overrides[0] for overrides in batch))
        for number, [name] in enumerate(batch, first):
            if self.session.stopped:
                return
            self.session.start(number)
            ended = self.do(name)
            if ended is None:
                raise RuntimeError("a process was killed")
            if ended.status == "finished":
                write_result(self.runs / name, DONE)
            self.session.end(number, ended)


@pytest.fixture
def fake(session: Session, tmp_path: Path) -> Callable[[Callable[[str], Ended | None]], Fake]:
    return lambda do: Fake(session, tmp_path / "runs", do)


def test_the_job_that_dies_alone_is_the_one_that_failed(
    begin: Begin, fake: Callable[..., Fake], said: io.StringIO
) -> None:
    launcher = fake(lambda name: None if name == "b" else Ended("finished"))
    ended = begin(launcher, "abc").conduct()
    assert launcher.launched == ["abc", "b", "c"]  # c had not begun, so it is not suspected
    assert {name: ending.status for name, ending in ended.items()} == {
        "a": "finished", "b": "failed", "c": "finished",
    }  # fmt: skip
    assert "job b: failed: its process died: RuntimeError: a process was killed" in said.getvalue()
    assert "[1/3] job a: f1 50.0 at ρ 50.0 %" in said.getvalue()


def test_a_job_that_dies_once_is_done_again(begin: Begin, fake: Callable[..., Fake]) -> None:
    deaths = ["b"]

    def do(name: str) -> Ended | None:
        if name in deaths:
            deaths.remove(name)
            return None
        return Ended("finished")

    launcher = fake(do)
    ended = begin(launcher, "abc").conduct()
    assert [ending.status for ending in ended.values()] == ["finished"] * 3


def test_a_launcher_that_starts_nothing_is_said(begin: Begin) -> None:
    def launch(batch: Sequence[Sequence[str]], first: int) -> None:
        raise RuntimeError("no cluster")

    with pytest.raises(ValueError, match="could not start a run: RuntimeError: no cluster"):
        begin(launch, "ab").conduct()


def test_batches(begin: Begin, fake: Callable[..., Fake]) -> None:
    launcher = fake(lambda name: Ended("finished"))
    assert len(begin(launcher, "abcde", max_batch_size=2).conduct()) == 5
    assert launcher.launched == ["ab", "cd", "e"]


def test_what_another_process_does_is_waited_for_and_taken_from_it(
    begin: Begin, fake: Callable[..., Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = {name: FileLock(tmp_path / "runs" / name / ".lock") for name in "ab"}

    def do(name: str) -> Ended:
        return Ended("busy") if name in locks and locks[name].is_locked else Ended("finished")

    slept: list[float] = []

    def sleep(seconds: float) -> None:
        """The other process: it finishes a, then goes away with b half done."""
        slept.append(seconds)
        if len(slept) == 2:
            write_result(tmp_path / "runs" / "a", DONE)
            locks["a"].release()
        if len(slept) == 4:
            locks["b"].release()

    conductor = begin(launcher := fake(do), "abc")
    for lock in locks.values():
        lock.acquire()
    monkeypatch.setattr(conduct_module.time, "sleep", sleep)
    ended = conductor.conduct()
    assert launcher.launched == ["abc", "b"]
    assert {name: ending.status for name, ending in ended.items()} == dict.fromkeys(
        "abc", "finished"
    )


def test_a_failure_elsewhere_is_not_tried_again_here(
    begin: Begin, fake: Callable[..., Fake], tmp_path: Path
) -> None:
    def do(name: str) -> Ended:
        write_result(tmp_path / "runs" / name, {"status": "failed", "error": "no luck"})
        return Ended("busy")

    launcher = fake(do)
    ended = begin(launcher, "a").conduct()
    assert launcher.launched == ["a"]
    assert ended["a"] == Ended("failed", "no luck")


def test_a_signal_lets_the_running_end_and_no_other_start(
    begin: Begin, fake: Callable[..., Fake], session: Session
) -> None:
    def do(name: str) -> Ended:
        if name == "b":
            os.kill(os.getpid(), signal.SIGINT)
            return Ended("interrupted")
        return Ended("finished")

    conductor = begin(launcher := fake(do), "abc", max_batch_size=2)
    handler = signal.getsignal(signal.SIGINT)
    ended = conductor.conduct()
    assert launcher.launched == ["ab"]
    assert list(ended) == ["a"]
    assert conductor.signal_number == signal.SIGINT
    assert session.stopped
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_interrupt_is_at_once(begin: Begin, fake: Callable[..., Fake]) -> None:
    def do(name: str) -> Ended:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return Ended("finished")

    with pytest.raises(KeyboardInterrupt):
        begin(fake(do), "a").conduct()


def test_sweeps_of_one_moment_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = {Session.begin(tmp_path / "sweep").directory.name for _ in range(3)}
    assert folders == {"sweep", "sweep_2", "sweep_3"}


def test_a_terminal_shows_all_and_each(
    begin: Begin, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    display = SweepDisplay(console, total=4, done=1)
    with display:
        display.running("aaa · cola", 0, 0)
        display.running("full · cola", 250, 500)
        display.started -= 60
        display.refresh(waiting=1)
        monkeypatch.setattr(display, "done", 2)
        assert display.seconds_left() == pytest.approx(60, rel=0.05)
        display._progress.refresh()
        display.ended("full · cola", "full · cola: done", failed=True)
        display.refresh()
    shown = screen.getvalue()
    assert "preparing" in shown
    assert "step 250 of 500" in shown
    assert "1 of 4 done, 2 running, 1 left to another process" in shown
    assert "[3/4] full · cola: done" in shown
    assert "1 failed" in shown


def test_a_runs_bar_follows_its_heartbeat(begin: Begin, session: Session, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def launch(batch: Sequence[Sequence[str]], first: int) -> None:
        session.start(first)
        (tmp_path / "runs" / "a" / PROGRESS).write_text("{")  # being written
        conductor._scan()
        write_json(tmp_path / "runs" / "a" / PROGRESS, {"step": 3, "steps": 9, "time": 0})
        conductor._scan()
        session.end(first, Ended("refused", "out of reach"))

    conductor = begin(launch, "a")
    conductor.display.running = lambda label, step, steps: seen.append((step, steps))  # type: ignore[method-assign]
    conductor.conduct()
    assert {(0, 0), (3, 9)} <= set(seen)


def test_durations() -> None:
    assert [duration(s) for s in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]
