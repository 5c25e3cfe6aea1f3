"""Files by which a sweep and its jobs, wherever they run, know of each other. No torch.

In the sweep's folder, job by job: ``7.started`` when it starts, ``7.log`` with whatever it prints,
``7.json`` when it has ended; and ``stop`` once the sweep is to end.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from aaa.experiments.result import write_json

Ending = Literal["finished", "skipped", "busy", "interrupted", "failed", "refused"]

OWNER, STOP = "sweep.json", "stop"


@dataclass(frozen=True)
class Ended:
    """How a job ended: ``error`` says why it failed, ``signal_number`` what stopped it."""

    status: Ending
    error: str | None = None
    signal_number: int | None = None


@dataclass(frozen=True)
class Session:
    """The folder of one sweep."""

    directory: Path

    @classmethod
    def begin(cls, wanted: Path) -> Session:
        """A folder that no other sweep has: ``wanted``, or that name with a number behind it."""
        number, directory = 1, wanted
        while True:
            try:
                directory.mkdir(parents=True)
                break
            except FileExistsError:
                number += 1
                directory = wanted.with_name(f"{wanted.name}_{number}")
        write_json(directory / OWNER, _process())
        return cls(directory)

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that conducts the sweep."""
        return bool(json.loads((self.directory / OWNER).read_text()) == _process())

    @property
    def stopped(self) -> bool:
        """Whether the sweep is to end."""
        return (self.directory / STOP).exists()

    def stop(self) -> None:
        """Lets running jobs end with a checkpoint, and no other start."""
        (self.directory / STOP).touch()

    def log(self, job: int) -> Path:
        """Where a job's output goes."""
        return self.directory / f"{job}.log"

    def start(self, job: int) -> None:
        """Says that a job has begun."""
        (self.directory / f"{job}.started").touch()

    def has_started(self, job: int) -> bool:
        """Whether a job has begun."""
        return (self.directory / f"{job}.started").exists()

    def end(self, job: int, ended: Ended) -> None:
        """Says how a job ended."""
        write_json(self.directory / f"{job}.json", asdict(ended))

    def ended(self, job: int) -> Ended | None:
        """How a job ended, None before it has."""
        path = self.directory / f"{job}.json"
        return Ended(**json.loads(path.read_text())) if path.exists() else None


def _process() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname()}
