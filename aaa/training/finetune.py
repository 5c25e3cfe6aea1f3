"""The Lightning module that fine-tunes a sparse encoder on one task (Eq. 10)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from aaa.control import Controller
from aaa.data.metrics import build_metrics
from aaa.data.task import Task
from aaa.mask_statistics import ChosenTokens, MaskStatistics
from aaa.masks import SparseMask
from aaa.objective import sample_sparsity, sparsity
from aaa.sparse import (
    gate_parameters,
    latest_masks,
    scale_gate_noise,
    sparse_layers,
    synchronise_patterns,
)
from aaa.training.optimiser import parameter_groups, rate_schedule
from aaa.training.settings import TrainingSettings

Batch = dict[str, Tensor]


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
        self.masks = MaskStatistics(len(learned))
        self.tokens = ChosenTokens(vocab_size)

    def update(self, logits: Tensor, batch: Batch, masks: list[SparseMask]) -> None:
        """Adds a batch."""
        self.scores.update(logits, batch["labels"])
        self.masks.update(masks)
        if any(self.learned):
            learned = [mask for mask, own in zip(masks, self.learned, strict=True) if own]
            self.tokens.update(batch["input_ids"], learned)

    def conclude(self) -> dict[str, Any]:
        """The metrics and mask statistics over all processes; ready for the next evaluation."""
        metrics = {name: float(value) for name, value in self.scores.compute().items()}
        figures = {**self.masks.compute(), "metrics": metrics}
        if any(self.learned):
            figures["chosen_tokens"] = self.tokens.compute()
        for metric in (self.scores, self.masks, self.tokens):
            metric.reset()
        return figures


class FineTune(LightningModule):
    """Task loss plus the sparsity objective; evaluation by the task's metrics and rho.

    The noise of step t (dropout, Gumbel) is a function of seed, process and t alone, so a run
    that is resumed at t goes on as if it had never stopped.

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
        super().__init__()
        self.model, self.task, self.control = model, task, control
        self.settings, self.total_steps = settings, total_steps
        self.seed = seed
        self.learned = [
            layer.pattern.learnable
            for layer in sparse_layers(model)
            for _ in range(layer.masks.maxlen or 0)
        ]
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
        torch.manual_seed(_noise_seed(self.seed, self.global_rank, batch_idx))
        progress = self.global_step / self.total_steps
        if self.control is not None:
            scale_gate_noise(self.model, self.control.settings.noise_at(progress))
        loss = self._task_loss(self(batch), batch["labels"])
        shown: dict[str, Any] = {"loss": loss.detach()}
        if self.control is not None:
            rho_B = sample_sparsity(self.model)
            lengths_B = latest_masks(self.model)[0].lengths_B
            loss = loss + self.control(rho_B, lengths_B, progress, self._average)
            shown |= {"rho": rho_B.detach().mean(), "alpha": self.control.alpha}
            shown |= {"target": self.control.target, "gap": self.control.gap}
        elif self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            shown["rho"] = sparsity(self.model)
        self.log_dict({f"train/{name}": value for name, value in shown.items()}, prog_bar=True)
        return loss

    def on_after_backward(self) -> None:
        """Processes see texts of different lengths. Gates wait for the target to begin to rise."""
        synchronise_patterns(self.model)
        if self.control is not None and self.control.waiting:
            # The task alone would open them so far that no later force could move them.
            for gate in gate_parameters(self.model):
                gate.grad = None

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Logs the rates."""
        rates = self.trainer.optimizers[0].param_groups
        self.log("train/learning_rate", rates[0]["lr"])
        if self.control is not None:
            self.log("train/gate_learning_rate", rates[-1]["lr"])

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the scores and the mask statistics of its development set."""
        self._evaluation(self._splits[dataloader_idx]).update(
            self(batch), batch, latest_masks(self.model)
        )

    def on_validation_epoch_end(self) -> None:
        """Exact figures over whole development sets, whatever the batches and processes."""
        for split in self._splits:
            figures = self.figures[split] = self._evaluation(split).conclude()
            logged = {f"{split}/{name}": value for name, value in figures["metrics"].items()}
            logged[f"{split}/rho"] = figures["sparsity"]
            layers = {"rho": figures["sparsity_per_layer"]}
            if any(self.learned):
                layers |= {share: figures[share] for share in ("row_share", "column_share")}
            logged |= {
                f"{split}/{name}_layer_{layer}": value
                for name, values in layers.items()
                for layer, value in enumerate(values)
                if value is not None
            }
            self.log_dict(logged, rank_zero_only=True)
        headline = self.figures["validation"]["metrics"][self.task.headline]
        self.log(self.task.headline, headline, prog_bar=True, logger=False, rank_zero_only=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, fused; rates go by steps."""
        settings = self.settings
        optimiser = torch.optim.AdamW(
            parameter_groups(self.model, settings),
            betas=settings.betas,
            eps=settings.eps,
            fused=True,
        )
        schedule = rate_schedule(optimiser, settings, self.total_steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by norm; Lightning's own refuses a fused optimiser under any autocast."""
        if gradient_clip_val is None:
            return
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), gradient_clip_val)

    @property
    def _splits(self) -> list[str]:
        return self.trainer.datamodule.evaluation_splits  # type: ignore[attr-defined]

    def _average(self, value: Tensor) -> Tensor:
        """Over processes."""
        return self.trainer.strategy.reduce(value, reduce_op="mean")

    def _evaluation(self, split: str) -> Evaluation:
        evaluation = self.evaluations[split]
        assert isinstance(evaluation, Evaluation)
        return evaluation

    def _task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.task.is_regression:
            return F.mse_loss(logits.squeeze(-1), labels)
        return F.cross_entropy(logits, labels)


def _noise_seed(seed: int, rank: int, batch: int) -> int:
    """One number from three; SplitMix64's finisher keeps neighbouring batches apart."""
    mixed = (seed * 1_000_003 + rank) * 1_000_000_007 + batch
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63
