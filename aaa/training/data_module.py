"""The Lightning data module: encoded splits, in batches of like lengths."""

from __future__ import annotations

from collections.abc import Mapping

from datasets import Dataset
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from aaa.data.batching import Collate, EvalBatches, TrainBatches
from aaa.training.settings import TrainingSettings


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

    @property
    def evaluation_splits(self) -> list[str]:
        """The development sets; the first is the one whose headline metric counts."""
        return [name for name in self.splits if name != "train"]

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
        return DataLoader(self.splits["train"], batch_sampler=batches, collate_fn=self.collate)

    def val_dataloader(self) -> list[DataLoader]:
        """One loader a development set; every example once over all processes."""
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
