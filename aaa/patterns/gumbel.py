"""The hard 0/1 gate that can be trained: Gumbel-sigmoid with a straight-through gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# A logit that is one parameter is this many times that parameter (ours). Under Adam a parameter
# moves by about the rate each step, while the logits of an importance layer move by the sum over
# hundreds of features: so one rate serves both.
SINGLE_LOGIT_GAIN = 32.0

LARGEST_LOGIT = 5.0  # of a gate in training: it is then open (or closed) but for 0.7 % of draws


class _Bounded(torch.autograd.Function):
    """Logits within the bound; no gradient where it would push them further beyond (ours).

    Without it a gate that the task wants open long enough becomes so sure that it is never drawn
    closed, and then no gradient reaches it, nor its partner in ``1 - (1 - row)(1 - column)``.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        outward = (logits.abs() > LARGEST_LOGIT) & (gradient * logits < 0)
        return gradient.masked_fill(outward, 0.0)


@torch.no_grad()
def lower_level(weight: Tensor, by: float, gain: float = 1.0) -> None:
    """Lowers logits that are ``gain * weight``, in place, within ``LARGEST_LOGIT`` (ours).

    Beyond it nothing more closes or opens; it would only take the longer to come back, and what
    is far out gets no gradient that could bring it back: a closed layer stayed closed.
    """
    limit = LARGEST_LOGIT / gain
    weight.sub_(by / gain).clamp_(-limit, limit)


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
    logistic, so a gate is open with probability ``sigmoid(logit)``, the logit bounded by
    ``LARGEST_LOGIT``. Otherwise there is no noise
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
    soft = torch.sigmoid((_Bounded.apply(logits) + noise) / temperature)
    hard = (soft > 0.5).float()
    return hard + (soft - soft.detach())
