"""The place that a run comes back to: written whole or not at all, the latest few kept."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.io import TorchCheckpointIO

from aaa.training.checkpoint_files import generations, older

log = logging.getLogger(__name__)


def ends_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a micro-step is a step's last: amid a step, gradients would be missing on disk."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


class SafeCheckpointIO(TorchCheckpointIO):
    """Puts a checkpoint in place once all of it is on disk, and keeps the ones before it.

    Where it cannot be written, because the disk is full, say, that is said in the log, the ones
    before stay, and training goes on: the next one may succeed.

    Args:
        keep: how many to keep.
    """

    def __init__(self, keep: int = 1) -> None:
        super().__init__()
        self.keep = keep

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes the checkpoint, on the first process alone."""
        path = Path(path)
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # the latter from torch's own writer
            partial.unlink(missing_ok=True)
            kept = next(iter(generations(path)), None)
            log.error(
                "no checkpoint could be written at step %s (%s); %s, and training goes on",
                checkpoint.get("global_step"),
                error,
                f"the one before stays: {kept}" if kept else "there is none before it",
            )
            return
        self._make_room(path)
        partial.replace(path)

    def _make_room(self, path: Path) -> None:
        """Every older one moves a place on. Whenever this is cut short, the latest is there."""
        for number in range(self.keep - 1, 0, -1):
            newer = path if number == 1 else older(path, number - 1)
            if newer.exists():
                newer.replace(older(path, number))


class ResumePoint(Callback):
    """Keeps ``last.ckpt``, the state of a run at its latest checkpoint.

    Args:
        path: where it lies. It exists once a run has reached ``every_steps`` or was stopped.
        every_steps: optimiser steps from one to the next.
        label: what a checkpoint says besides Lightning's state.
        every_minutes: the most minutes from one to the next; None for any number.
    """

    def __init__(
        self,
        path: Path,
        every_steps: int,
        label: Mapping[str, str],
        every_minutes: float | None = None,
    ) -> None:
        self.path, self.every_steps, self.label = path, every_steps, label
        self.every_minutes = every_minutes
        self._saved_at, self._saved_when = 0, time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run's state is on disk already."""
        self._saved_at, self._saved_when = trainer.global_step, time.monotonic()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Writes the label."""
        checkpoint.update(self.label)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves when it is time."""
        if ends_step(trainer, batch_idx) and self._is_due(trainer):
            self.save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.global_step >= self._saved_at + self.every_steps:
            return True
        if self.every_minutes is None:
            return False
        late = time.monotonic() - self._saved_when >= 60 * self.every_minutes
        if trainer.world_size == 1:
            return late
        # The processes' clocks need not agree.
        return trainer.strategy.reduce_boolean_decision(late, all=False)

    def save(self, trainer: Trainer) -> None:
        """Saves now; all processes must call it."""
        trainer.save_checkpoint(self.path)
        self._saved_at, self._saved_when = trainer.global_step, time.monotonic()
        trainer.strategy.barrier("resume point")
