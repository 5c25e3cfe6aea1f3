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

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"  # all of it is one pass for Lightning; epochs are seams inside
