"""What people see of a sweep: a bar for all of it, one for each run, a line for each end.

On a terminal the bars stay at the bottom and lines scroll above; elsewhere there are only lines.
"""

from __future__ import annotations

import os
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

MAX_BARS = 12  # of runs; more would not fit a terminal


def own_console() -> Console:
    """A console on stderr as it is now, also while a job's output goes elsewhere."""
    return Console(
        file=os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace"),
        highlight=False,
        soft_wrap=True,
    )


class SweepDisplay:
    """The bars and lines of one sweep.

    Args:
        console: where.
        total: cells with runs, all of them.
        done: how many had ended before.
    """

    def __init__(self, console: Console, total: int, done: int) -> None:
        self.console, self.total, self.done = console, total, done
        self.done_before, self.failed = done, 0
        self.started = time.monotonic()
        self._shares: dict[str, float] = {}  # of each run that trains
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._progress.add_task("cells", total=total, completed=done, said="")

    def __enter__(self) -> SweepDisplay:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """A line above the bars."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def running(self, label: str, step: int, steps: int) -> None:
        """How far a run is; of no steps while it prepares."""
        self._shares[label] = step / steps if steps else 0.0
        if label not in self._bars:
            if len(self._bars) >= MAX_BARS:
                return
            self._bars[label] = self._progress.add_task(f"  {label}", total=None, said="")
        said = f"step {step:,} of {steps:,}" if steps else "preparing"
        self._progress.update(self._bars[label], completed=step, total=steps or None, said=said)

    def stopped(self, label: str) -> None:
        """A run is over, however it ended, or left to another process."""
        self._shares.pop(label, None)
        if label in self._bars:
            self._progress.remove_task(self._bars.pop(label))

    def ended(self, label: str, line: str, failed: bool) -> None:
        """A cell is over for this sweep."""
        self.stopped(label)
        self.done += 1
        self.failed += failed
        self.say(f"[{self.done}/{self.total}] {line}")

    def refresh(self, waiting: int = 0) -> None:
        """Brings the bar of the whole up to date."""
        told = [f"{self.done} of {self.total} done", f"{len(self._shares)} running"]
        if self.failed:
            told.append(f"{self.failed} failed")
        if waiting:
            told.append(f"{waiting} left to another process")
        if (left := self.seconds_left()) is not None:
            told.append(f"{duration(left)} left")
        self._progress.update(self._all, completed=self.done, said=", ".join(told))

    def seconds_left(self) -> float | None:
        """From the pace so far, runs under way counted by their share; None before that."""
        worked = self.done - self.done_before + sum(self._shares.values())
        if worked < 0.05:
            return None
        return (
            (self.total - self.done_before - worked) * (time.monotonic() - self.started) / worked
        )


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
