"""Who works in a run's directory: one process at a time, and others can see that it does."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

NAME = ".lock"
# Seconds to wait for it: long enough that somebody who only looks is never taken for a worker.
PATIENCE = 0.5


def run_lock(directory: Path) -> FileLock:
    """Held while a run is being done; ``Timeout`` is raised if another process has it."""
    return FileLock(directory / NAME, timeout=PATIENCE)


def is_being_run(directory: Path) -> bool:
    """Whether a process on this machine works in the directory right now."""
    if not (directory / NAME).exists():
        return False
    try:
        with FileLock(directory / NAME, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that is only read, in which nobody can work
        return False
