"""Stops a training that has come apart, before a checkpoint of the wreck is written."""

from __future__ import annotations

import math
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

MEMORY = 0.98  # of the running mean: about the last fifty steps
SETTLING = 20  # steps before the mean says anything
LEAST_RISE = 1.0  # nats: near a loss of 0, doubling is no alarm


class Diverged(Exception):
    """Training cannot go on: ``what`` there is to see after ``step`` tells that it came apart."""

    def __init__(self, step: int, what: str, otherwise: str = "") -> None:
        super().__init__(
            f"at step {step} {what}. The same command would come to the same point again: lower "
            f"training.learning_rate, lengthen training.warmup{otherwise}"
        )

    def add(self, advice: str) -> None:
        """Adds to what it says."""
        self.args = (f"{self}{advice}",)


class LossGuard(Callback):
    """Raises ``Diverged`` where a step's loss is no number, or a spike.

    A spike is a loss above ``spike`` times the running mean of those before it, and by more than a
    nat. It must come before the resume point in the list of callbacks. The module says the loss of
    the latest step in ``step_loss``.

    Args:
        spike: see above; None to look for NaN and infinity alone.
    """

    def __init__(self, spike: float | None) -> None:
        self.spike, self._mean, self._seen = spike, 0.0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Looks at the step that ends."""
        loss: float | None = pl_module.step_loss  # type: ignore[assignment]
        if loss is None:  # amid the micro-steps of a step
            return
        step = trainer.global_step - 1
        if not math.isfinite(loss):
            raise Diverged(step, f"the loss is {loss}")
        settled = self._seen >= SETTLING
        limit = max((self.spike or math.inf) * self._mean, self._mean + LEAST_RISE)
        if settled and loss > limit:
            times = loss / self._mean
            raise Diverged(
                step,
                f"the loss is {loss:.3g}, {times:.1f} times its running mean",
                otherwise=", or, if this is how this training is, raise training.spike",
            )
        memory = min(MEMORY, self._seen / (self._seen + 1))  # a plain mean at first
        self._mean = memory * self._mean + (1 - memory) * loss
        self._seen += 1

    def state_dict(self) -> dict[str, Any]:
        """What it remembers."""
        return {"mean": self._mean, "seen": self._seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with what it remembered."""
        self._mean, self._seen = state_dict["mean"], state_dict["seen"]
