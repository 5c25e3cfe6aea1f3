"""The bar of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel, RandomDataset
from torch.utils.data import DataLoader

from aaa.training.progress import TrainingBar


class Seen(Callback):
    """Where the bar is after each batch, and where it ends."""

    def __init__(self, bar: TrainingBar) -> None:
        self.bar = bar
        self.places: list[tuple[float, float | None]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        assert self.bar.progress is not None
        (task,) = self.bar.progress.tasks
        self.places.append((task.completed, task.total))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_bar_counts_steps(tmp_path: Path, accumulate: int) -> None:
    bar = TrainingBar("accuracy")
    seen = Seen(bar)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=3,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        callbacks=[bar, seen],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(BoringModel(), DataLoader(RandomDataset(32, 64)))
    assert seen.places == [(step // accumulate, 3) for step in range(1, 3 * accumulate + 1)]
