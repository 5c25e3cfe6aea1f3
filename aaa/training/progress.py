"""The bar that people watch while a run trains."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

SHOWN = {"train/loss": "loss", "train/rho": "ρ", "train/alpha": "α"}


class TrainingBar(RichProgressBar):
    """Steps, time left, loss, rho, alpha and, after an evaluation, the task's headline metric."""

    def __init__(self, headline: str) -> None:
        super().__init__(leave=True)
        self.headline = headline

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The figures beside the bar, under the names of the paper."""
        figures: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown = {**SHOWN, self.headline: self.headline}
        return {short: figures[name] for name, short in shown.items() if name in figures}

    @property
    def total_train_batches(self) -> int:
        """Steps, of which each may take several batches."""
        return self.trainer.max_steps

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Moves the bar to the last step that is done."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"  # all of it is one pass for Lightning; epochs are seams inside
