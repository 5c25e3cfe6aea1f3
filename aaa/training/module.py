"""What every training of a sparse encoder has in common, as a Lightning module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from transformers import PreTrainedModel

from aaa.control import Controller
from aaa.objective import sample_sparsity, sparsity
from aaa.sparse import (
    gate_parameters,
    latest_masks,
    lower_gates,
    scale_gate_noise,
    sparse_layers,
    synchronise_patterns,
)
from aaa.training.guard import Diverged
from aaa.training.optimiser import parameter_groups, rate_schedule
from aaa.training.settings import TrainingSettings

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Settled:
    """What bringing trained gates to their target came to.

    Args:
        trained: rho on the development set as training left it.
        lowered: by what the logits of all gates were lowered then.
        turned: how many single gates were opened or closed after that.
    """

    trained: float
    lowered: float
    turned: int


class SparseTraining(LightningModule):
    """The sparsity objective, the optimiser, and noise that does not depend on the past.

    The noise of step t (dropout, Gumbel) is a function of the seed, t and a number of the process
    alone, so a run that is resumed at t goes on as if it had never stopped.

    Args:
        model: a sparsified encoder under a head.
        control: of the sparsity; None where the pattern has nothing to learn.
        settings: optimiser and schedule.
        total_steps: optimiser steps of the whole run.
        seed: of the noise.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        control: Controller | None,
        settings: TrainingSettings,
        total_steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.model, self.control = model, control
        self.settings, self.total_steps, self.seed = settings, total_steps, seed
        self.rho = math.nan  # of the latest evaluation of the development set
        self.silent = False  # evaluations log nothing
        self.settled: Settled | None = None  # at the end, where there is something to settle
        self.learned = [
            layer.pattern.learnable
            for layer in sparse_layers(model)
            for _ in range(layer.masks.maxlen or 0)
        ]

    def begin_micro_step(self, process: int, number: int) -> float:
        """Sets the noise by two numbers that no other micro-step has together.

        Returns:
            The share of training that is done.
        """
        torch.manual_seed(_noise_seed(self.seed, process, number))
        progress = self.global_step / self.total_steps
        if self.control is not None:
            scale_gate_noise(self.model, self.control.settings.noise_at(progress))
        return progress

    def sparsity_term(self, progress: float, shown: dict[str, Any]) -> Tensor | float:
        """The second term of Eq. 10 for the pass that has just been made, 0 without gates.

        Adds to ``shown`` what there is to be logged of it.
        """
        if self.control is None:
            if self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
                shown["rho"] = sparsity(self.model)
            return 0.0
        rho_B = sample_sparsity(self.model)
        term = self.control(rho_B, latest_masks(self.model)[0].lengths_B, progress, self.average)
        shown |= {"rho": rho_B.detach().mean(), "alpha": self.control.alpha}
        shown |= {"target": self.control.target, "gap": self.control.gap}
        return term

    def on_after_backward(self) -> None:
        """Processes see texts of different lengths. Gates wait for the target to begin to rise."""
        synchronise_patterns(self.model)
        if self.control is None:
            return
        if self.control.lowering:  # never under the hinge: Eq. 10 alone moves its gates
            lower_gates(self.model, self.control.lowering)
        if self.control.waiting:
            # The task alone would open them so far that no later force could move them.
            for gate in gate_parameters(self.model):
                gate.grad = None

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Logs the rates."""
        rates = self.trainer.optimizers[0].param_groups
        self.log("train/learning_rate", rates[0]["lr"])
        if self.control is not None:
            self.log("train/gate_learning_rate", rates[-1]["lr"])

    def conclude_evaluation(self, split: str, figures: Mapping[str, Any]) -> None:
        """Logs metrics and the masks' statistics, for all layers and each."""
        if split == "validation":
            self.rho = figures["sparsity"]
        if self.silent:
            return
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
        """Clips by norm; Lightning's own refuses a fused optimiser under any autocast.

        Raises:
            Diverged: for a gradient that is no number, before it reaches the weights.
        """
        limit = math.inf if gradient_clip_val is None else gradient_clip_val
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if not bool(norm.isfinite()):
            raise Diverged(self.global_step, f"the gradient is {float(norm)}")

    def average(self, value: Tensor) -> Tensor:
        """Over processes."""
        return self.trainer.strategy.reduce(value, reduce_op="mean")


def _noise_seed(seed: int, process: int, number: int) -> int:
    """One number from three; SplitMix64's finisher keeps neighbouring ones apart."""
    mixed = (seed * 1_000_003 + process) * 1_000_000_007 + number
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63
