"""The sparsity term of the loss, batch by batch.

Shape suffixes: B batch, N true lengths (an entry for each length from 0 on).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from aaa.control.length_target import LengthTarget
from aaa.control.settings import SparsityControl

INTEGRAL_TIME = 0.2  # share of training in which a small gap that stays doubles its force
NEAR = 0.02  # a gap counts for no more in the integral: far from the target it would overshoot
# A gap lowers all logits so that it is gone after a share of training, where a logit less closes a
# share of the cells; no faster than by a few times the gap, and by no more than for a large gap.
LEVEL_TIME, CLOSED_BY_A_LOGIT = 0.01, 0.1
FASTEST_LEVEL, LARGE = 2.0, 0.3


class Controller(nn.Module):
    """The sparsity term of the loss, and dual's integral behind it (saved in checkpoints).

    Args:
        settings: see there.
        by_length: the target and the weight of each text.
        num_batches: batches of the whole training; several make a step where they accumulate.
        num_heads: attention heads of a layer; ``l1`` counts the cells of each.
    """

    target_N: Tensor
    weight_N: Tensor
    integral: Tensor

    def __init__(
        self,
        settings: SparsityControl,
        by_length: LengthTarget,
        num_batches: int,
        num_heads: int = 1,
    ) -> None:
        super().__init__()
        assert settings.control != "search", "a search is made of runs under the hinge"
        self.settings, self.num_batches, self.num_heads = settings, num_batches, num_heads
        self.register_buffer("target_N", by_length.target_N, persistent=False)
        self.register_buffer("weight_N", by_length.weight_N, persistent=False)
        self.register_buffer("integral", torch.tensor(0.0, dtype=torch.float64))
        self.alpha = self.gap = self.target = 0.0  # of the latest step, to be shown
        self.lowering = 0.0  # of all logits, that the latest step asks for
        self.waiting = False  # for the target to begin to rise

    def forward(
        self,
        rho_B: Tensor,
        lengths_B: Tensor,
        progress: float,
        average: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> Tensor:
        """The term of one batch, a scalar with the gradient of ``rho_B``.

        Args:
            rho_B: rho of each text, with gradient.
            lengths_B: their true lengths.
            progress: share of training done, in [0, 1).
            average: over processes, of a tensor without gradient.
        """
        settings = self.settings
        if settings.control == "l1":
            self.alpha = settings.strength
            return self.alpha * (self.num_heads * lengths_B**2 * (1 - rho_B)).mean()
        ramp = settings.ramp_at(progress)
        self.target = settings.rho * ramp
        self.waiting = ramp == 0
        target_B = self.target_N[lengths_B] * ramp
        weight_B = self.weight_N[lengths_B]
        gap = (weight_B * (target_B - rho_B)).mean()
        self.gap = float(average(gap.detach()))
        if settings.control == "hinge":
            self.alpha = settings.alpha_at(progress)
            return self.alpha * torch.relu(gap)
        if self.waiting:  # or open gates would be driven further open
            self.alpha = self.lowering = 0.0
            return 0.0 * gap
        near = max(-NEAR, min(NEAR, self.gap))
        self.integral += near / (INTEGRAL_TIME * self.num_batches)
        speed = min(FASTEST_LEVEL, 1 / (LEVEL_TIME * self.num_batches * CLOSED_BY_A_LOGIT))
        self.lowering = speed * settings.level_at(progress) * max(-LARGE, min(LARGE, self.gap))
        self.alpha = settings.strength * (self.gap + float(self.integral))
        return self.alpha * gap
