"""The Lightning module that fine-tunes a sparse encoder on one task (Eq. 10)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import SumMetric
from transformers import PreTrainedModel

from aaa.control import Controller
from aaa.data.metrics import build_metrics
from aaa.data.task import Task
from aaa.mask_statistics import ChosenTokens, MaskStatistics
from aaa.masks import SparseMask
from aaa.sparse import latest_masks
from aaa.training.guard import Diverged
from aaa.training.module import Batch, SparseTraining
from aaa.training.settings import TrainingSettings


class Evaluation(nn.Module):
    """What is measured over one development set.

    Args:
        task: gives the metrics.
        learned: for each layer, whether its pattern is learned: what these choose is counted.
        vocab_size: number of tokens of the encoder's vocabulary.
    """

    def __init__(self, task: Task, learned: list[bool], vocab_size: int) -> None:
        super().__init__()
        self.learned = learned
        self.scores = build_metrics(task.metrics, task.num_labels)
        self.broken = SumMetric()  # of the logits, those that are no number: argmax hides them
        self.masks = MaskStatistics(len(learned))
        self.tokens = ChosenTokens(vocab_size)

    def update(self, logits: Tensor, batch: Batch, masks: list[SparseMask]) -> None:
        """Adds a batch."""
        self.scores.update(logits, batch["labels"])
        self.broken.update((~logits.isfinite()).sum())
        self.masks.update(masks)
        if any(self.learned):
            learned = [mask for mask, own in zip(masks, self.learned, strict=True) if own]
            self.tokens.update(batch["input_ids"], learned)

    def conclude(self) -> dict[str, Any]:
        """The metrics and mask statistics over all processes; ready for the next evaluation."""
        broken = int(self.broken.compute())
        metrics = {name: float(value) for name, value in self.scores.compute().items()}
        figures = {**self.masks.compute(), "metrics": metrics, "broken": broken}
        if any(self.learned):
            figures["chosen_tokens"] = self.tokens.compute()
        for metric in (self.scores, self.broken, self.masks, self.tokens):
            metric.reset()
        return figures


class FineTune(SparseTraining):
    """Task loss plus the sparsity objective; evaluation by the task's metrics and rho.

    Args:
        model: a sparsified encoder under a classification head.
        task: gives the loss (mean squared error for regression, else cross entropy) and metrics.
        control: of the sparsity; None where the pattern has nothing to learn.
        settings: optimiser and schedule.
        total_steps: optimiser steps of the whole run.
        splits: what will be evaluated on; the data module says what of it now, and in which order.
        seed: of the noise.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        task: Task,
        control: Controller | None,
        settings: TrainingSettings,
        total_steps: int,
        splits: list[str],
        seed: int,
    ) -> None:
        super().__init__(model, control, settings, total_steps, seed)
        self.task = task
        self.evaluations = nn.ModuleDict(
            {split: Evaluation(task, self.learned, model.config.vocab_size) for split in splits}
        )
        self.figures: dict[str, dict[str, Any]] = {}  # of the latest evaluation, by split

    def forward(self, batch: Batch) -> Tensor:
        """Logits in float32, shape (B, labels)."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return self.model(**inputs).logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """L_All of Eq. 10."""
        progress = self.begin_micro_step(self.global_rank, batch_idx)
        loss = self._task_loss(self(batch), batch["labels"])
        shown = {"loss": loss.detach()}
        loss = loss + self.sparsity_term(progress, shown)
        self.log_dict({f"train/{name}": value for name, value in shown.items()}, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the scores and the mask statistics of its development set."""
        self._evaluation(self._splits[dataloader_idx]).update(
            self(batch), batch, latest_masks(self.model)
        )

    def on_validation_epoch_end(self) -> None:
        """Exact figures over whole development sets, whatever the batches and processes.

        Raises:
            Diverged: if not all that the model says is a number.
        """
        for split in self._splits:
            figures = self.figures[split] = self._evaluation(split).conclude()
            if figures["broken"]:
                what = f"the model's answers to {split} texts are no numbers"
                raise Diverged(self.global_step - 1, what)
            self.conclude_evaluation(split, figures)
        headline = self.figures["validation"]["metrics"][self.task.headline]
        self.log(self.task.headline, headline, prog_bar=True, logger=False, rank_zero_only=True)

    @property
    def _splits(self) -> list[str]:
        return self.trainer.datamodule.evaluation_splits  # type: ignore[attr-defined]

    def _evaluation(self, split: str) -> Evaluation:
        evaluation = self.evaluations[split]
        assert isinstance(evaluation, Evaluation)
        return evaluation

    def _task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.task.is_regression:
            return F.mse_loss(logits.squeeze(-1), labels)
        return F.cross_entropy(logits, labels)
