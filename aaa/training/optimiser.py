"""AdamW over three groups of parameters, and the schedule of their rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aaa.sparse import gate_parameters
from aaa.training.settings import TrainingSettings


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """Gates with a rate of their own and no decay; biases and norms without decay; the rest.

    Only parameters that are trained; empty groups are left out.
    """
    gates = {id(parameter) for parameter in gate_parameters(model)}
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    gated: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in gates:
            gated.append(parameter)
        else:
            # Biases and the weights of norms are vectors; everything else is a matrix or more.
            (decayed if parameter.dim() > 1 else undecayed).append(parameter)
    groups = [
        {"params": decayed, "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
        {"params": undecayed, "lr": settings.learning_rate, "weight_decay": 0.0},
        {"params": gated, "lr": settings.gate_learning_rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def linear_decay(
    optimiser: torch.optim.Optimizer, warmup: float, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Rates rise linearly over ``warmup`` of the steps, then fall linearly to 0 at the last."""
    warmup_steps = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
