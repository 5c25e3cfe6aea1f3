"""One cell as a launcher runs it, in this process or in another, here or elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from aaa.experiments.sweep.session import Ended, Session

POLL_SECONDS = 0.5


def do_cell(config: DictConfig) -> None:
    """Does a run; whatever comes of it is written to the sweep's folder, nothing is raised."""
    hydra = HydraConfig.get()
    session, number = Session(Path(hydra.sweep.dir)), int(hydra.job.num)
    if session.stopped:
        return
    session.start(number)
    ended = Ended("interrupted")
    with _output_to(session.log(number)), _stopped_with(session):
        ended = _attempt(config)
    if ended.status == "interrupted" and session.is_ours:  # Ctrl-C meant the sweep
        session.stop()
    session.end(number, ended)


def ignore_interrupts() -> None:
    """For the processes of a pool, when they start."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _attempt(config: DictConfig) -> Ended:
    try:
        from aaa.experiments.console import set_up_logging
        from aaa.experiments.run import run

        set_up_logging()
        outcome = run(config)
    except ValueError as refusal:
        return Ended("refused", str(refusal))
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the former the latter
        return Ended("interrupted")
    except Exception as trouble:
        traceback.print_exc()
        return Ended("failed", f"{type(trouble).__name__}: {trouble}")
    error = outcome.result.get("error") if outcome.result else None
    return Ended(outcome.status, error, outcome.signal_number)


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """All that this process and its children print goes to a file, not into the display."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def _stopped_with(session: Session) -> Iterator[None]:
    """Ends this job, with a checkpoint if it trains, as soon as the sweep is to end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not over.is_set():
            raise KeyboardInterrupt
        # Nothing is left to be stopped here, and the launcher must not be. The sweep is told,
        # unless it is what this signal comes from.
        handler = previous[number]
        if callable(handler) and not session.stopped:
            handler(number, frame)

    previous: dict[int, Any] = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            if session.stopped:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
        over.set()
    except KeyboardInterrupt:  # came between the run's end and this one's
        pass
    finally:
        over.set()
        watcher.join()
        for number, handler in previous.items():
            signal.signal(number, handler)
