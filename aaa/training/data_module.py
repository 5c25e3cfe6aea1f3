"""The Lightning data module: encoded splits, in batches of like lengths."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Dataset
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from aaa.data.batching import Collate, EvalBatches, TrainBatches
from aaa.training.settings import TrainingSettings

TEST = "test"  # the split that is evaluated once, when training has ended


class TimedLoader(DataLoader):
    """A loader that counts the seconds for which its reader waited for batches (``waited``)."""

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            since = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - since
            if batch is None:
                return
            yield batch


class TaskData(LightningDataModule):
    """Serves ``encode``d splits: ``train``, and every other one to evaluate on.

    Training is one long pass of ``total_steps`` steps: epochs are seams inside the sampler. So a
    resumed run goes on with the very next batch.
    """

    def __init__(
        self,
        splits: Mapping[str, Dataset],
        collate: Collate,
        settings: TrainingSettings,
        total_steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.splits, self.collate, self.settings = splits, collate, settings
        self.total_steps, self.seed = total_steps, seed
        self.testing = False

    @property
    def evaluation_splits(self) -> list[str]:
        """What an evaluation is over: the development sets and, where ``testing``, the test."""
        return [name for name in self.splits if name != "train" and (name != TEST or self.testing)]

    def train_dataloader(self) -> DataLoader:
        """The batches from the step at which training stands."""
        assert self.trainer is not None
        batches = TrainBatches(
            self.splits["train"]["length"],
            batch_size=self.settings.batch_size,
            num_batches=self.total_steps * self.settings.accumulate,
            seed=self.seed,
            start=self.trainer.global_step * self.settings.accumulate,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return TimedLoader(self.splits["train"], batch_sampler=batches, collate_fn=self.collate)

    def val_dataloader(self) -> list[DataLoader]:
        """One loader for each of ``evaluation_splits``; every example once over all processes."""
        assert self.trainer is not None
        loaders = []
        for name in self.evaluation_splits:
            batches = EvalBatches(
                self.splits[name]["length"],
                batch_size=2 * self.settings.batch_size,  # no activations to keep
                rank=self.trainer.global_rank,
                world_size=self.trainer.world_size,
            )
            loaders.append(
                DataLoader(self.splits[name], batch_sampler=batches, collate_fn=self.collate)
            )
        return loaders
