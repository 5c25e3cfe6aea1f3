"""What a run needs around its training loop: a clean stop, and how fast it was."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from aaa.training.checkpoints import ResumePoint, ends_step
from aaa.training.finetune import FineTune


class Interrupted(Exception):
    """Training was stopped by a signal and left a checkpoint at ``step``."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.step, self.signal_number = step, signal_number


class Heartbeat(Callback):
    """Says in a small file how far training is, once a second, for whoever watches many runs.

    Args:
        path: a JSON with ``step``, ``steps`` and ``time`` (seconds since 1970).
    """

    EVERY_SECONDS = 1.0

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beaten_at = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says where a resumed run stands."""
        self._beat(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Beats when it is time."""
        if time.monotonic() >= self._beaten_at + self.EVERY_SECONDS:
            self._beat(trainer)

    def stop(self) -> None:
        """Takes the file away. (Lightning tells no callback of a failure at its end.)"""
        for path in (self.path, self.path.with_suffix(".partial")):
            path.unlink(missing_ok=True)

    def _beat(self, trainer: Trainer) -> None:
        self._beaten_at = time.monotonic()
        if not trainer.is_global_zero:
            return
        state = {"step": trainer.global_step, "steps": trainer.max_steps, "time": time.time()}
        partial = self.path.with_suffix(".partial")
        with suppress(OSError):  # a full disk, say: no run ends because nobody hears of it
            partial.write_text(json.dumps(state))
            partial.replace(self.path)


class StopOnSignal(Callback):
    """Ctrl-C and SIGTERM end the run after the current step, with a checkpoint.

    A second Ctrl-C ends the process at once. The first process decides for all of them, so that
    they stop after the same step.
    """

    def __init__(self, resume_point: ResumePoint) -> None:
        self.resume_point = resume_point
        self._received: int | None = None
        self._stopped_by: int | None = None  # once the checkpoint is written
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over both signals, if this thread may."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Writes the checkpoint if a signal came in."""
        if not ends_step(trainer, batch_idx):
            return
        received = self._received
        if trainer.world_size > 1:
            received = trainer.strategy.broadcast(received)
        if received is not None and trainer.global_step < trainer.max_steps:
            self.resume_point.save(trainer)
            self._stopped_by = received

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Stops, now that the figures of the step before are logged.

        Raises:
            Interrupted: after the checkpoint is written.
        """
        if self._stopped_by is not None:
            raise Interrupted(trainer.global_step, self._stopped_by)

    def restore(self) -> None:
        """Hands the signals back to whoever had them.

        But for those that Lightning has handed back already: what it had put there itself belongs
        to this run's trainer, which would be kept for good, and would catch what the next is sent.
        """
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number


class KeepBest(Callback):
    """Keeps the weights of the best evaluation, and puts them back when training has ended.

    Args:
        path: where they lie meanwhile.
        metric: of the validation split; higher is better. Of equals the first is kept.
        from_step: evaluations before it do not count.
    """

    def __init__(self, path: Path, metric: str, from_step: float) -> None:
        self.path, self.metric, self.from_step = path, metric, from_step
        self.score: float | None = None
        self.step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the weights if none were better."""
        assert isinstance(pl_module, FineTune)
        score = pl_module.figures["validation"]["metrics"][self.metric]
        if trainer.global_step < self.from_step or not (self.score is None or score > self.score):
            return
        self.score, self.step = score, trainer.global_step
        if trainer.is_global_zero:
            partial = self.path.with_suffix(".partial")
            with partial.open("wb") as file:
                torch.save(pl_module.model.state_dict(), file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)

    def put_back(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the best weights back; all processes must call it."""
        trainer.strategy.barrier("best weights")
        weights = torch.load(self.path, map_location=pl_module.device, weights_only=True)
        assert isinstance(pl_module, FineTune)
        pl_module.model.load_state_dict(weights)
        self.from_step = math.inf  # what is evaluated from now on is not of the last step

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint says of it; the weights stay where they are."""
        return {"score": self.score, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with what was the best at the checkpoint: a later best will come again."""
        self.score, self.step = state_dict["score"], state_dict["step"]


class Stopwatch(Callback):
    """How long a run has taken, with what it took up to the checkpoint that it goes on from."""

    def __init__(self) -> None:
        self._started, self._before = time.time(), 0.0

    @property
    def seconds(self) -> float:
        """On the clock."""
        return self._before + time.time() - self._started

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._before = state_dict["seconds"]


class Speed(Callback):
    """Examples per second of training, fetching them included; evaluations and checkpoints not.

    And the share of that time for which training waited for its batches. The first steps of a
    process are left out: they pay for warming up. On the way ``train/examples_per_second`` is
    logged, each over the steps since the last time: it rises as a learned mask closes.
    """

    WARM_UP_STEPS = 3

    def __init__(self) -> None:
        self._seconds, self._waited, self._examples, self._steps = 0.0, 0.0, 0, 0
        self._logged = (0, 0.0)  # examples and seconds
        self._since: float | None = None  # the end of the step before, if nothing came between
        self._waited_then = 0.0  # in all, at that time

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Counts the step that ends; logs now and then."""
        now = time.perf_counter()
        waited = trainer.train_dataloader.waited  # type: ignore[union-attr]
        if self._steps >= self.WARM_UP_STEPS and self._since is not None:
            self._seconds += now - self._since
            self._waited += waited - self._waited_then
            self._examples += len(batch["labels"]) * trainer.world_size
        self._steps += 1
        self._since, self._waited_then = now, waited
        examples, seconds = self._examples - self._logged[0], self._seconds - self._logged[1]
        if (batch_idx + 1) % trainer.log_every_n_steps == 0 and seconds:  # type: ignore[attr-defined]
            self._logged = (self._examples, self._seconds)
            self.log_rate(pl_module, examples / seconds)

    def log_rate(self, pl_module: LightningModule, examples_per_second: float) -> None:
        """Logs how fast the latest steps were."""
        pl_module.log("train/examples_per_second", examples_per_second)

    def on_validation_end(self, *_: Any) -> None:
        """The clock starts again with the next step's end."""
        self._since = None

    def on_save_checkpoint(self, *_: Any) -> None:
        """The clock starts again with the next step's end."""
        self._since = None

    @property
    def examples_per_second(self) -> float | None:
        """Over all processes; None for a run too short to tell."""
        return self._examples / self._seconds if self._seconds else None

    @property
    def data_wait_share(self) -> float | None:
        """Of this process; None for a run too short to tell."""
        return self._waited / self._seconds if self._seconds else None
