"""How a run trains, checked before any work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from aaa.data.batching import batches_per_epoch
from aaa.numbers import check_bool, is_number

Precision = Literal["32-true", "bf16-mixed"]
Schedule = Literal["linear", "rsqrt"]
Decay = Literal["matrices", "all"]
Keep = Literal["last", "best"]
CHOICES = {"precision": Precision, "schedule": Schedule, "decay": Decay, "keep": Keep}


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What decides the numbers that a training run ends with.

    The defaults of the values come from conf/training; the paper adopts Hugging Face's. What has a
    default here came later: at its default it is no part of a run's identity, so that runs keep
    the names that they had before.

    Args:
        learning_rate: peak rate of the encoder and its head.
        gate_learning_rate: peak rate of the patterns' gates, which have no weight decay.
        weight_decay: decoupled from the gradient (AdamW); gates have none.
        warmup: share of the steps in which the rate rises linearly from 0.
        clip: norm to which the gradient is clipped; None leaves it as it is.
        batch_size: examples a device and micro-step.
        accumulate: micro-steps a step.
        devices: processes of one machine; the batch of a step has
            ``batch_size * accumulate * devices * num_nodes`` examples.
        num_nodes: machines.
        max_steps: optimiser steps; None to count in epochs.
        max_epochs: passes over the training set; not read where max_steps is given.
        precision: ``32-true`` or ``bf16-mixed``.
        gradient_checkpointing: recompute activations in backward to save memory.
        evaluations: how often the development set is evaluated, evenly spread, the end included.
        betas, eps: of Adam.
        schedule: of the rates after the warm-up: ``linear`` to 0 at the last step, or ``rsqrt``,
            ``peak * sqrt(warm-up / step)`` (Vaswani et al., 2017), which needs a warm-up.
        decay: what decays: ``matrices``, all weights but biases and norms, or ``all``.
        keep: the weights a run ends with: of its ``last`` step, or of the evaluation that was the
            ``best`` by the headline metric; of a learned pattern, among those at which its target
            and its gates' noise were no longer on the move.

    Raises:
        ValueError: naming the field that is out of range.
    """

    learning_rate: float
    gate_learning_rate: float
    weight_decay: float
    warmup: float
    clip: float | None
    batch_size: int
    accumulate: int
    devices: int
    num_nodes: int
    max_steps: int | None
    max_epochs: float | None
    precision: Precision
    gradient_checkpointing: bool
    evaluations: int
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Schedule = "linear"
    decay: Decay = "matrices"
    keep: Keep = "last"

    def __post_init__(self) -> None:
        for field in ("batch_size", "accumulate", "devices", "num_nodes", "evaluations"):
            self._require(field, is_number(getattr(self, field), int), "a whole number")
            self._require(field, getattr(self, field) >= 1, "1 or more")
        for field in ("learning_rate", "gate_learning_rate", "clip", "eps"):
            if field == "clip" and self.clip is None:
                continue
            self._require(field, is_number(getattr(self, field)), "a number")
            self._require(field, getattr(self, field) > 0, "above 0")
        self._require("weight_decay", is_number(self.weight_decay), "a number")
        self._require("weight_decay", self.weight_decay >= 0, "0 or more")
        self._require(
            "warmup", is_number(self.warmup) and 0 <= self.warmup < 1, "a share in [0, 1)"
        )
        check_bool("training.gradient_checkpointing", self.gradient_checkpointing)
        betas = tuple(self.betas) if isinstance(self.betas, Sequence) else ()
        self._require(
            "betas",
            len(betas) == 2 and all(is_number(beta) and 0 <= beta < 1 for beta in betas),
            "two numbers in [0, 1)",
        )
        object.__setattr__(self, "betas", betas)
        for field, kind in CHOICES.items():
            known = get_args(kind)
            self._require(field, getattr(self, field) in known, " or ".join(known))
        self._require(
            "warmup", self.schedule == "linear" or self.warmup > 0, "above 0 for schedule=rsqrt"
        )
        if self.max_steps is None and self.max_epochs is None:
            raise ValueError("training needs training.max_steps or training.max_epochs")
        steps, epochs = self.max_steps, self.max_epochs
        self._require(
            "max_steps",
            steps is None or (is_number(steps, int) and steps >= 1),
            "a whole number of 1 or more",
        )
        self._require(
            "max_epochs", epochs is None or (is_number(epochs) and epochs > 0), "above 0"
        )

    def _require(self, field: str, holds: bool, right: str) -> None:
        if not holds:
            raise ValueError(f"training.{field} must be {right}, not {getattr(self, field)!r}")

    @property
    def world_size(self) -> int:
        """Processes over all machines."""
        return self.devices * self.num_nodes

    @property
    def examples_a_step(self) -> int:
        """Examples of one optimiser step, over all micro-steps and processes."""
        return self.batch_size * self.accumulate * self.world_size

    def total_steps(self, num_examples: int) -> int:
        """Optimiser steps of the whole run, given the examples of one epoch.

        However a step's examples are divided among devices and micro-steps.
        """
        if self.max_steps is not None:
            return self.max_steps
        assert self.max_epochs is not None
        per_epoch = batches_per_epoch(num_examples, self.examples_a_step)
        return max(1, round(self.max_epochs * per_epoch))


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings(TrainingSettings):
    """What decides the numbers of a pre-training run besides.

    Args:
        masked: share of the tokens that are hidden and to be predicted.
        spike: training stops at a step whose loss is so many times the running mean of the losses
            before it; None for no such limit.

    Raises:
        ValueError: naming the field that is out of range.
    """

    masked: float
    spike: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("keep", self.keep == "last", "last: pre-training has no best to go back to")
        self._require("masked", is_number(self.masked) and 0 < self.masked < 1, "between 0 and 1")
        spike = self.spike
        self._require("spike", spike is None or (is_number(spike) and spike > 1), "above 1")
