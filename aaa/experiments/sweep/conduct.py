"""The running of a sweep's jobs: given to a launcher, watched, left, waited for, blamed."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from aaa.experiments.lock import is_being_run
from aaa.experiments.result import PROGRESS, figures, is_finished, read_result
from aaa.experiments.sweep.display import SweepDisplay
from aaa.experiments.sweep.session import Ended, Session

WATCH_SECONDS = 0.5
# As a rule a busy run goes on for a while, and asking whether it still does takes its lock.
WAIT_SECONDS = 3.0

Launch = Callable[[Sequence[Sequence[str]], int], Any]


@dataclass(frozen=True)
class Job:
    """A run that is to be done."""

    label: str
    overrides: tuple[str, ...]
    run_id: str


class Conductor:
    """Brings jobs to their ends, each ``Ended`` written by the job itself to the sweep's folder.

    A job whose process dies (out of memory, say) may take its launcher's pool with it. Then
    whichever were under way are started again, one at a time: the one that dies alone is the
    one that failed. A job that another process is doing is left and waited for at the end; if
    that process goes away without a result, it is done here.

    Args:
        jobs: what is to be done, in order.
        launch: a launcher's ``launch``: overrides of jobs, and the number of the first.
        session: the sweep's folder.
        runs: where runs lie.
        display: what people see.
        max_batch_size: how many jobs are launched at once; None for all.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        launch: Launch,
        session: Session,
        runs: Path,
        display: SweepDisplay,
        max_batch_size: int | None = None,
    ) -> None:
        self.jobs, self.launch, self.session, self.runs = jobs, launch, session, runs
        self.display, self.batch_size = display, max_batch_size or max(1, len(jobs))
        self.ended: dict[str, Ended] = {}  # by run id
        self.signal_number: int | None = None
        self._open: dict[int, Job] = {}  # launched, by number, and not known to have ended
        self._numbers = 0
        self._waiting: list[Job] = []
        self._scanning = threading.Lock()

    def conduct(self) -> dict[str, Ended]:
        """Does the jobs, or those that come before the sweep is stopped.

        Raises:
            ValueError: if the launcher cannot start any.
        """
        with self.display, self._watching(), self._signals():
            to_do = list(self.jobs)
            while to_do and not self.session.stopped:
                while to_do and not self.session.stopped:
                    batch, to_do = to_do[: self.batch_size], to_do[self.batch_size :]
                    to_do = self._run(batch) + to_do
                to_do = self._freed()
        return self.ended

    def _run(self, batch: Sequence[Job]) -> list[Job]:
        """Launches jobs, and alone again those whose process died; returns the unstarted."""
        died, unstarted, trouble = self._launch(batch)
        if trouble is not None and len(unstarted) == len(batch):
            raise ValueError(f"the launcher could not start a run: {trouble}")
        for suspect in died:
            if self.session.stopped:
                break
            died_alone, _, trouble = self._launch([suspect])
            if died_alone:
                self._end(suspect, Ended("failed", f"its process died: {trouble}"))
        return unstarted

    def _launch(self, batch: Sequence[Job]) -> tuple[list[Job], list[Job], str | None]:
        """Launches jobs; returns those without an end, those not begun, and what went wrong."""
        numbered = dict(enumerate(batch, self._numbers))
        self._numbers += len(batch)
        self._open |= numbered
        trouble = None
        try:
            self.launch([job.overrides for job in batch], min(numbered))
        except Exception as error:  # launchers have one of their own for every kind of trouble
            trouble = f"{type(error).__name__}: {str(error).strip()}"
        self._scan()
        left = {number: job for number, job in numbered.items() if number in self._open}
        for number, job in left.items():
            del self._open[number]
            self.display.stopped(job.label)
        begun = [job for number, job in left.items() if self.session.has_started(number)]
        return begun, [job for job in left.values() if job not in begun], trouble

    def _freed(self) -> list[Job]:
        """Waits for what other processes do; returns what they left undone, once there is such."""
        while self._waiting and not self.session.stopped:
            freed = []
            for job in list(self._waiting):
                result = read_result(self.runs / job.run_id)
                if not is_finished(result) and is_being_run(self.runs / job.run_id):
                    continue
                self._waiting.remove(job)
                if result is None:
                    freed.append(job)
                else:
                    self._end(job, Ended(result["status"], result.get("error")))
            if freed:
                return freed
            time.sleep(WAIT_SECONDS if self._waiting else 0)
        return []

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """Shows what jobs say of themselves while the launcher works."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(WATCH_SECONDS):
                self._scan()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            self._scan()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM let running jobs end with a checkpoint; a second Ctrl-C does not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self.signal_number is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal_number = number
            self.session.stop()

        previous = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _scan(self) -> None:
        """Reads what open jobs have written."""
        with self._scanning:
            for number, job in list(self._open.items()):
                ended = self.session.ended(number)
                if ended is not None:
                    del self._open[number]
                    self._take(job, ended, number)
                elif self.session.has_started(number):
                    self.display.running(job.label, *_progress(self.runs / job.run_id))
            self.display.refresh(len(self._waiting))

    def _take(self, job: Job, ended: Ended, number: int) -> None:
        if ended.status == "busy":
            self.display.stopped(job.label)
            self._waiting.append(job)
        elif ended.status == "interrupted":
            self.display.stopped(job.label)
            self.signal_number = self.signal_number or ended.signal_number
        else:
            self._end(job, ended, self.session.log(number))

    def _end(self, job: Job, ended: Ended, log: Path | None = None) -> None:
        self.ended[job.run_id] = ended
        failed = ended.status in ("failed", "refused")
        if not failed:
            result = read_result(self.runs / job.run_id)
            told = "finished" if result is None else figures(result)
        else:
            told = f"{ended.status}: {ended.error}"
            run_log = self.runs / job.run_id / "run.log"
            if ended.status == "failed":
                told += f"; see {run_log if run_log.exists() else log}"
        self.display.ended(job.label, f"{job.label}: {told}", failed)


def _progress(directory: Path) -> tuple[int, int]:
    """Step and steps of a run that trains; zeros before."""
    try:
        state = json.loads((directory / PROGRESS).read_text())
        return int(state["step"]), int(state["steps"])
    except (OSError, ValueError, KeyError):
        return 0, 0
