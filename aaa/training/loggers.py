"""Where a run's figures go while it trains; conf/logger chooses one."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

METRICS = "metrics.csv"


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
        """Appends what was noted."""
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(("step", "name", "value"))
            writer.writerows(self._pending)
        self._pending.clear()

    def _drop_lines_from(self, step: int) -> None:
        if not self.path.exists():
            return
        with self.path.open(newline="") as file:
            header, *rows = list(csv.reader(file))
        # A line cut short by a kill has too few fields or an unreadable step.
        kept = [row for row in rows if len(row) == 3 and row[0].isdigit() and int(row[0]) < step]
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([header, *kept])
        partial.replace(self.path)


def csv_logger(run_id: str, directory: Path) -> list[Logger]:
    """``metrics.csv`` in the run's directory."""
    return [CsvLogger(directory)]


def tensorboard_logger(run_id: str, directory: Path) -> list[Logger]:
    """TensorBoard's event files beside ``metrics.csv``."""
    return [CsvLogger(directory), TensorBoardLogger(directory, name="", version="tensorboard")]


def close_loggers(loggers: Iterable[Logger]) -> None:
    """Ends what stays open otherwise: the next job of a multirun would log into this W&B run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def wandb_logger(
    run_id: str,
    directory: Path,
    project: str,
    mode: Literal["online", "offline", "disabled"],
    group: str | None,
    tags: list[str],
) -> list[Logger]:
    """W&B beside ``metrics.csv``; its run id is ours, so a resumed run goes on in its W&B run."""
    wandb = WandbLogger(
        id=run_id,
        name=run_id,
        project=project,
        save_dir=directory,
        group=group,
        tags=list(tags),
        mode=mode,
        resume="allow",
    )
    return [CsvLogger(directory), wandb]
