"""The Lightning data module of pre-training: blocks with hidden tokens, from any place on."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from aaa.data.batching import EvalBatches
from aaa.data.blocks import MaskedBlocks, StepBatches
from aaa.data.streamed import StreamedBlocks
from aaa.training.data_module import TimedLoader
from aaa.training.settings import PretrainingSettings


class CorpusData(LightningDataModule):
    """Serves blocks to train on, by number, and held-out ones in their order.

    Its state says where training stands: after ``step`` steps it had seen ``examples`` blocks.
    From there on each step takes the next blocks, in whatever number of processes. So a resumed
    run goes on with the very next batch.

    Args:
        train: drawn from in random order.
        validation: all of it, at each evaluation.
        settings: give the batch and its division.
        total_steps: optimiser steps of the whole run.
    """

    def __init__(
        self,
        train: MaskedBlocks | StreamedBlocks,
        validation: MaskedBlocks,
        settings: PretrainingSettings,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.settings, self.total_steps = settings, total_steps
        self._step = self._examples = 0  # where training stood when it was last resumed

    def state_dict(self) -> dict[str, Any]:
        """Where training stands."""
        assert self.trainer is not None
        step = self.trainer.global_step
        seen = self._seen(step)
        return {"step": step, "examples": seen} | (
            {"stream": self.train.state(seen)} if isinstance(self.train, StreamedBlocks) else {}
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where it stood."""
        self._step, self._examples = state_dict["step"], state_dict["examples"]
        if isinstance(self.train, StreamedBlocks):
            self.train.load_state(state_dict["stream"])

    def train_dataloader(self) -> DataLoader:
        """The batches from the step at which training stands."""
        assert self.trainer is not None
        step, settings = self.trainer.global_step, self.settings
        batches = StepBatches(
            settings.batch_size,
            (self.total_steps - step) * settings.accumulate,
            start=self._seen(step),
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            done=step * settings.accumulate,
        )
        return self._loader(self.train, batches)

    def val_dataloader(self) -> DataLoader:
        """Every held-out block once over all processes."""
        assert self.trainer is not None
        batches = EvalBatches(
            [self.validation.blocks.length] * len(self.validation.blocks),
            batch_size=2 * self.settings.batch_size,  # no activations to keep
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return self._loader(self.validation, batches)

    def _seen(self, step: int) -> int:
        return self._examples + (step - self._step) * self.settings.examples_a_step

    def _loader(self, blocks: Dataset, batches: Any) -> DataLoader:
        assert self.trainer is not None
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return TimedLoader(
            blocks,
            batch_sampler=batches,
            collate_fn=_as_it_is,
            # On a CPU batches are ready at once. A stream's state is that of this process.
            num_workers=2 if on_gpu and not isinstance(blocks, StreamedBlocks) else 0,
            pin_memory=on_gpu,
            persistent_workers=False,
        )


def _as_it_is(batch: Any) -> Any:
    """The dataset makes whole batches."""
    return batch
