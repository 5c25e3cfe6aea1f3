"""AdamW over three groups of parameters, and the schedule of their rates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from aaa.sparse import gate_parameters
from aaa.training.settings import TrainingSettings


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Gates with a rate of their own and no decay; biases and norms; the rest.

    Biases and norms decay only where ``settings.decay`` says ``all``. Only parameters that are
    trained; empty groups are left out.
    """
    gates = {id(parameter) for parameter in gate_parameters(model)}
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    gated: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in gates:
            gated.append(parameter)
        else:
            # Biases and the weights of norms are vectors; everything else is a matrix or more.
            (matrices if parameter.dim() > 1 else vectors).append(parameter)
    vector_decay = settings.weight_decay if settings.decay == "all" else 0.0
    groups = [
        {"params": matrices, "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
        {"params": vectors, "lr": settings.learning_rate, "weight_decay": vector_decay},
        {"params": gated, "lr": settings.gate_learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def rate_schedule(
    optimiser: torch.optim.Optimizer, settings: TrainingSettings, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Rates rise linearly over the warm-up, then fall as ``settings.schedule`` says."""
    warmup_steps = round(settings.warmup * total_steps)

    def linear(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))

    def rsqrt(step: int) -> float:
        # Counted from 1, where LRA's is 0 at the first step.
        done, peak = step + 1, max(1, warmup_steps)
        return min(1.0, done / peak) * math.sqrt(peak / max(done, peak))

    factor = {"linear": linear, "rsqrt": rsqrt}[settings.schedule]
    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
