"""The Lightning module that pre-trains a sparse encoder as a masked language model.

Shape suffixes: B blocks, N tokens, D features, K places that are predicted, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from transformers import PreTrainedModel

from aaa.control import Controller
from aaa.data.masking import IGNORED
from aaa.mask_statistics import MaskStatistics
from aaa.sparse import latest_masks
from aaa.training.module import Batch, SparseTraining
from aaa.training.settings import PretrainingSettings


class HiddenWords(nn.Module):
    """An encoder with its language model's head, asked for the hidden tokens alone.

    Scores over the vocabulary are most of what the head of a small encoder costs, and five of six
    would be thrown away.

    Args:
        model: of any family, with a masked language model's head.

    Raises:
        ValueError: if it has none.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        output = model.get_output_embeddings()
        if output is None:
            raise ValueError(f"{type(model).__name__} has no head that predicts tokens")
        self.model = model
        self._places_BK: Tensor | None = None
        output.register_forward_pre_hook(self._pick)

    def forward(self, batch: Batch) -> Tensor:
        """Scores at ``places`` (B, K), float32 of shape (B, K, V)."""
        self._places_BK = batch["places"]
        scores = self.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
        if self._places_BK is not None:  # the head computes without calling its output embeddings
            scores, self._places_BK = _at(scores, self._places_BK), None
        return scores.float()

    def _pick(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._places_BK is None:  # somebody else's pass
            return None
        places_BK, self._places_BK = self._places_BK, None
        return (_at(args[0], places_BK), *args[1:])


def _at(values_BND: Tensor, places_BK: Tensor) -> Tensor:
    index_BKD = places_BK.unsqueeze(-1).expand(-1, -1, values_BND.shape[-1])
    return values_BND.gather(1, index_BKD)


class Pretrain(SparseTraining):
    """Cross entropy of hidden tokens plus the sparsity objective.

    A micro-step's noise is that of the first block it has, wherever it is done: two processes and
    one with twice the micro-steps draw the same.

    Args:
        model: a sparsified encoder under a masked language model's head.
        control: of the sparsity; None where the pattern has nothing to learn.
        settings: optimiser and schedule.
        total_steps: optimiser steps of the whole run.
        seed: of the noise.
    """

    settings: PretrainingSettings

    def __init__(
        self,
        model: PreTrainedModel,
        control: Controller | None,
        settings: PretrainingSettings,
        total_steps: int,
        seed: int,
    ) -> None:
        super().__init__(model, control, settings, total_steps, seed)
        self.words = HiddenWords(model)
        # A NaN is to show, not to be left out of the mean.
        self.losses, self.hits = MeanMetric(nan_strategy="disable"), MeanMetric()
        self.masks = MaskStatistics(len(self.learned))
        self.step_loss: float | None = None  # of the latest whole step, over all processes
        self.figures: dict[str, Any] = {}  # of the latest evaluation
        self._pending: list[Tensor] = []  # losses of a step's micro-steps so far

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """L_All of Eq. 10."""
        progress = self.begin_micro_step(0, int(batch["number"]))
        loss = _mean_loss(self.words(batch), batch["labels"])
        shown: dict[str, Any] = {}
        self._pending.append(loss.detach())
        total = loss + self.sparsity_term(progress, shown)
        self.step_loss = None
        if len(self._pending) == self.settings.accumulate:
            self.step_loss = float(self.average(torch.stack(self._pending).mean()))
            self._pending.clear()
            shown["loss"] = self.step_loss
        self.log_dict({f"train/{name}": value for name, value in shown.items()}, prog_bar=True)
        return total

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning counts micro-steps, and a step may now be divided into another number."""
        done = checkpoint["global_step"] * self.settings.accumulate
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            shift = done - counts["ready"]  # by what they differ says in which hook it was saved
            counts.update({name: count + shift for name, count in counts.items()})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch of held-out blocks."""
        scores_BKV, labels_BK = self.words(batch), batch["labels"]
        real_BK = labels_BK != IGNORED
        losses_BK = F.cross_entropy(
            scores_BKV.transpose(1, 2), labels_BK, ignore_index=IGNORED, reduction="none"
        )
        self.losses.update(losses_BK[real_BK])
        self.hits.update((scores_BKV.argmax(-1) == labels_BK)[real_BK].float())
        self.masks.update(latest_masks(self.model))

    def on_validation_epoch_end(self) -> None:
        """Exact figures over all held-out blocks, whatever the batches and processes."""
        metrics = {
            "loss": float(self.losses.compute()),
            "masked_accuracy": float(self.hits.compute()),
        }
        self.figures = {**self.masks.compute(), "metrics": metrics}
        for metric in (self.losses, self.hits, self.masks):
            metric.reset()
        self.conclude_evaluation("validation", self.figures)
        self.log(
            "masked_accuracy", metrics["masked_accuracy"], prog_bar=True, logger=False,
            rank_zero_only=True,
        )  # fmt: skip


def _mean_loss(scores_BKV: Tensor, labels_BK: Tensor) -> Tensor:
    """The mean over what is hidden; 0 where nothing is."""
    total = F.cross_entropy(
        scores_BKV.flatten(0, 1), labels_BK.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (labels_BK != IGNORED).sum().clamp_min(1)
