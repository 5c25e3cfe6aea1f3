"""Sparsity: rho of Eq. 9, and the objective of Eq. 10 with its schedules.

Shape suffixes: L layers, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from aaa.patterns.base import LayerInput, LayerSite, Pattern
from aaa.sparse import gate_parameters, latest_masks

AlphaSchedule = Literal["constant", "linear"]


def sparsity(model: nn.Module) -> Tensor:
    """rho of the model's latest forward pass (Eq. 9): a scalar, differentiable in the gates.

    The mean over samples, layers and heads of ``1 - |B| / N^2``, where N is the true length.

    Raises:
        ValueError: if the model is dense or has not run yet.
    """
    return torch.stack([mask.sparsity().mean() for mask in latest_masks(model)]).mean()


def sparsity_loss(model: nn.Module, target: float, alpha: float = 10.0) -> Tensor:
    """``alpha * max(0, target - rho)``, the second term of Eq. 10, for the latest forward pass.

    Add it to the loss of the task before ``backward``::

        loss = model(**batch).loss + sparsity_loss(model, target=0.7)

    Raises:
        ValueError: if the model is dense, has not run yet, or ran without keeping the gradient of
            its gates (under ``no_grad``, which reentrant gradient checkpointing uses).
    """
    rho = sparsity(model)
    learning = torch.is_grad_enabled() and any(p.requires_grad for p in gate_parameters(model))
    if learning and model.training and not rho.requires_grad:
        raise ValueError(
            "the gates' gradient was lost in the forward pass: gradient checkpointing must be "
            "non-reentrant, model.gradient_checkpointing_enable({'use_reentrant': False})"
        )
    return alpha * torch.relu(target - rho)


@dataclass(frozen=True)
class Hinge:
    """The hinge objective of Eq. 10 and how its two numbers move during training.

    Args:
        target: rho to end at, in [0, 1); or ``match:<pattern>``, the rho that a fixed pattern of
            conf/pattern has on the task's development set (to be resolved before training).
        alpha: the factor of the hinge.
        alpha_schedule: ``constant``, or ``linear``: from 0 to ``alpha`` at half of training, then
            constant. These are the paper's two.
        margin: added to the target in training. The hinge has no force at its corner, so the task
            keeps rho a little below it; the paper raises alpha instead until the target is met.
        ramp_start, ramp_end: shares of training between which the target itself rises linearly
            from 0; both 0 for a target that stands from the start, as in the paper. Ours:
            enforcing a high target at once closes gates before the task can tell which matter.

        noise_start, noise_end: shares of training between which the gates' noise falls linearly
            to none; 1 and 1 to keep it to the end, as in the paper. Ours: gates that are half open
            under noise all open or all close without it, so that rho at evaluation is off.

    Raises:
        ValueError: naming the field that is out of range.
    """

    target: float | str
    alpha: float = 30.0
    alpha_schedule: AlphaSchedule = "constant"
    margin: float = 0.01
    ramp_start: float = 0.0
    ramp_end: float = 0.4
    noise_start: float = 1.0
    noise_end: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.target, str):
            if not self.target.startswith("match:"):
                raise ValueError(
                    "sparsity.target is a number in [0, 1) or match:<pattern>, "
                    f"not {self.target!r}"
                )
        elif not 0 <= self.target < 1:
            raise ValueError(
                f"sparsity.target is a share of closed cells in [0, 1), not {self.target}"
            )
        if not self.alpha > 0:
            raise ValueError(f"sparsity.alpha is above 0, not {self.alpha}")
        if self.alpha_schedule not in get_args(AlphaSchedule):
            known = ", ".join(get_args(AlphaSchedule))
            raise ValueError(
                f"unknown sparsity.alpha_schedule {self.alpha_schedule!r}; known: {known}"
            )
        if not 0 <= self.margin < 1:
            raise ValueError(f"sparsity.margin is a share of cells in [0, 1), not {self.margin}")
        for name in ("ramp", "noise"):
            start, end = getattr(self, f"{name}_start"), getattr(self, f"{name}_end")
            if not 0 <= start <= end <= 1:
                raise ValueError(
                    f"sparsity.{name}_start and sparsity.{name}_end are shares of training, "
                    f"0 <= start <= end <= 1, not {start} and {end}"
                )

    @property
    def matched_pattern(self) -> str | None:
        """The pattern whose rho is to be matched, or None where the target is a number."""
        return self.target.removeprefix("match:") if isinstance(self.target, str) else None

    def target_at(self, progress: float) -> float:
        """What rho is held against at a share of training in [0, 1], the margin included."""
        assert not isinstance(self.target, str), "match:<pattern> was not resolved"
        full = min(1.0, self.target + self.margin)
        return full * _risen(progress, self.ramp_start, self.ramp_end)

    def noise_at(self, progress: float) -> float:
        """The factor of the gates' noise at a share of training in [0, 1]."""
        return 1.0 - _risen(progress, self.noise_start, self.noise_end)

    def alpha_at(self, progress: float) -> float:
        """The factor at a share of training in [0, 1]."""
        return self.alpha * (min(1.0, 2 * progress) if self.alpha_schedule == "linear" else 1.0)


def _risen(progress: float, start: float, end: float) -> float:
    """0 up to ``start``, 1 from ``end`` on, linear between."""
    if progress >= end:
        return 1.0
    return (progress - start) / (end - start) if progress > start else 0.0


def sparsity_of_lengths(pattern: Pattern, lengths: Sequence[int], num_layers: int) -> float:
    """rho (Eq. 9) of a fixed pattern on texts of the given true lengths, without any model.

    With ``pattern.closed()`` this is the highest rho that a learnable pattern can reach there.

    Raises:
        ValueError: if the pattern is learnable, since its rho then depends on the text.
    """
    if pattern.learnable:
        raise ValueError(
            f"the sparsity of {pattern} is learned: it does not follow from lengths alone"
        )
    distinct, counts = torch.tensor(lengths).unique(return_counts=True)
    total = torch.zeros((), dtype=torch.float64)
    for layer in range(num_layers):
        bound = pattern.bind(LayerSite(layer, num_layers, hidden_size=1, num_heads=1))
        for chunk, times in zip(distinct.split(64), counts.split(64), strict=True):
            keep_BN = torch.arange(int(chunk.max())) < chunk.unsqueeze(-1)
            rho_B = bound(LayerInput(keep_BN)).sparsity()
            total += (rho_B.double() * times).sum()
    return float(total / (counts.sum() * num_layers))
