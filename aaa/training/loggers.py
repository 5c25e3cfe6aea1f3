"""Where a run's figures go while it trains; conf/logger chooses one."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from aaa.training.metrics_file import HEADER, METRICS

log = logging.getLogger(__name__)


class CsvLogger(Logger):
    """``metrics.csv`` with the columns step, name, value: one line a figure, appended.

    (Lightning's own starts the file anew when a run is resumed.) Lines that a killed run wrote
    after its last checkpoint are dropped when it goes on from there.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.path = directory / METRICS
        self._pending: list[tuple[int, str, float]] = []
        self._continued = False
        self._complained = False

    @property
    def name(self) -> str:
        """Lightning asks for a name."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning asks for a version."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Notes figures of a step; they reach the file with ``save``."""
        assert step is not None
        if not self._continued:
            self._drop_lines_from(step)
            self._continued = True
        self._pending += [
            (step, name, value) for name, value in metrics.items() if name != "epoch"
        ]

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The config lies beside the file."""

    @rank_zero_only
    def save(self) -> None:
        """Appends what was noted. On a full disk it is kept for the next time."""
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", newline="") as file:
                writer = csv.writer(file)
                writer.writerows([] if size else [HEADER])
                writer.writerows(self._pending)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, size)  # half of a line may have been written
            if not self._complained:
                log.warning("%s cannot be written, figures are kept: %s", self.path, error)
            self._complained = True
            return
        self._pending.clear()

    def _drop_lines_from(self, step: int) -> None:
        if not self.path.exists():
            return
        with self.path.open(newline="", errors="replace") as file:
            rows = list(csv.reader(file))[1:]
        # A line cut short by a kill has too few fields or an unreadable step.
        kept = [row for row in rows if len(row) == 3 and row[0].isdigit() and int(row[0]) < step]
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *kept])
        partial.replace(self.path)


def csv_logger(run_id: str, directory: Path) -> list[Logger]:
    """``metrics.csv`` in the run's directory."""
    return [CsvLogger(directory)]


def tensorboard_logger(run_id: str, directory: Path) -> list[Logger]:
    """TensorBoard's event files beside ``metrics.csv``."""
    return [CsvLogger(directory), _tensorboard(directory)]


def _tensorboard(directory: Path) -> Logger:
    return TensorBoardLogger(directory, name="", version="tensorboard", default_hp_metric=False)


@dataclass(frozen=True)
class Conclusion:
    """What there is to tell when a run has finished.

    Args:
        directory: the run's, with the exported model in it.
        result: what its result.json will say.
        texts: that many short texts of the development set, each with its second or None.
    """

    directory: Path
    result: Mapping[str, Any]
    texts: Callable[[int], list[tuple[str, str | None]]]


@runtime_checkable
class Concluding(Protocol):
    """A logger that wants to know how the run came out."""

    def conclude(self, conclusion: Conclusion) -> None:
        """Called once, in the first process, before the loggers are closed."""


def conclude(loggers: Iterable[Logger], conclusion: Conclusion) -> None:
    """Tells all loggers that want to know. What they make of it cannot fail a finished run."""
    for logger in loggers:
        if isinstance(logger, Concluding):
            try:
                logger.conclude(conclusion)
            except Exception:
                log.warning("%s: its summary is incomplete", type(logger).__name__, exc_info=True)


def close_loggers(loggers: Iterable[Logger], succeeded: bool) -> None:
    """Ends what stays open otherwise: the next job of a multirun would log into this W&B run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=0 if succeeded else 1)
