"""The hard 0/1 gate that can be trained: Gumbel-sigmoid with a straight-through gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_sigmoid(
    logits: Tensor,
    training: bool,
    temperature: float = 1.0,
    noise_scale: float = 1.0,
    one_draw: bool = False,
) -> Tensor:
    """A 0/1 indicator for each logit (Eq. 11; Jang et al., 2017; Maddison et al., 2017).

    In training, ``1[sigmoid((logit + noise) / temperature) > 1/2]`` with the gradient of that
    sigmoid (straight-through). The noise is the difference of two Gumbel variables, that is
    logistic, so a gate is open with probability ``sigmoid(logit)``. Otherwise there is no noise
    and a gate is open where its logit is above 0. The paper says neither the temperature nor what
    happens at evaluation: 1 and this rule are ours, and so is ``noise_scale``, a factor of the
    noise, at 0 of which training sees the very masks of evaluation.

    With ``one_draw`` the gates along the last axis share their noise: the open ones are then those
    of the highest logits.

    Returns:
        float32, of the shape of ``logits``, every value 0 or 1.
    """
    logits = logits.float()
    if not training:
        return (logits > 0).float()
    uniform = torch.rand_like(logits[..., :1] if one_draw else logits).clamp(1e-6, 1 - 1e-6)
    noise = noise_scale * (uniform.log() - (-uniform).log1p())
    soft = torch.sigmoid((logits + noise) / temperature)
    hard = (soft > 0.5).float()
    return hard + (soft - soft.detach())
