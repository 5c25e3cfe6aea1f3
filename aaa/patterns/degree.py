"""Learned neighbour degree: how far each head looks to both sides (Breaking BERT)."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaa.masks import SparseMask
from aaa.numbers import check_finite, check_whole
from aaa.patterns.base import LayerInput, LayerSite, Pattern
from aaa.patterns.gumbel import LARGEST_LOGIT, SINGLE_LOGIT_GAIN, gumbel_sigmoid
from aaa.patterns.local import Local

SMALLEST_SHARE = 1e-6  # of P(degree >= k) that stays with k itself when the level is lowered


class Degree(Pattern):
    """Each head attends to its neighbours up to a degree, and learns the distribution of it.

    Breaking BERT (Brahma et al., 2022) learns, after the degree distributions of LDPC codes, the
    degree of connectivity of the neighbour connections of heads while optimising for sparsity. No
    more than this is established; the rest is ours. Every head of every layer has a distribution
    over the degrees 0 to ``max_degree``, the softmax of its logits. Offset k is open if the degree
    is k or more, with ``P(degree >= k)``, which falls with k by construction. Offset 0, the main
    diagonal, is always open.

    In training a head draws one degree a forward pass: by inversion, so that one noise decides all
    of its offsets (``gumbel_sigmoid`` of the logits of ``P(degree >= k)``, hard, with that
    sigmoid's gradient). At evaluation the degree is the distribution's median: an offset is open
    if its probability is above one half. The objective is the same as any other pattern's
    (Eq. 10). It starts with the degree at its maximum with probability ``sigmoid(initial_logit)``
    and all lower degrees alike, so that fine-tuning starts from nearly full attention.

    Args:
        max_degree: radius in tokens, 1 or more; it may be longer than the texts.
        initial_logit: of the highest degree against all lower ones.
        temperature: of the Gumbel-sigmoid.

    Raises:
        ValueError: if a number is none, or ``max_degree`` or the temperature is not positive.
    """

    degree_weights_HK: nn.Parameter  # there once bound to a layer; one for each degree from 0 on

    def __init__(
        self, max_degree: int = 64, initial_logit: float = 2.0, temperature: float = 1.0
    ) -> None:
        super().__init__()
        check_whole("Degree", "max_degree", max_degree, least=1)
        check_finite("Degree", "initial_logit", initial_logit)
        check_finite("Degree", "temperature", temperature, above=0)
        self.max_degree, self.initial_logit = max_degree, initial_logit
        self.temperature = temperature

    def bind(self, site: LayerSite) -> Pattern:
        bound = copy.deepcopy(self)
        logits_HK = torch.zeros(site.num_heads, self.max_degree + 1)
        logits_HK[:, -1] = self.initial_logit + math.log(self.max_degree)
        bound.degree_weights_HK = nn.Parameter(logits_HK / SINGLE_LOGIT_GAIN)
        return bound

    def closed(self) -> Pattern:
        return Local(0)

    def forward(self, inputs: LayerInput) -> SparseMask:
        gates_HK = gumbel_sigmoid(
            self._offset_logits(), self.training, self.temperature, self.noise_scale, one_draw=True
        )
        diagonals_HK = F.pad(gates_HK, (1, 0), value=1.0)
        return SparseMask(inputs.keep_BN, diagonals_BHK=diagonals_HK.unsqueeze(0))

    def probabilities(self) -> Tensor:
        """``P(degree >= k)`` for the offsets k from 1 to ``max_degree``, shape (H, K)."""
        return self._offset_logits().sigmoid()

    def _offset_logits(self) -> Tensor:
        """``log P(degree >= k) - log P(degree < k)``; the softmax's denominator cancels out."""
        logits_HK = SINGLE_LOGIT_GAIN * self.degree_weights_HK.float()
        below_HK = logits_HK.logcumsumexp(-1)[:, :-1]
        from_here_HK = logits_HK.flip(-1).logcumsumexp(-1).flip(-1)[:, 1:]
        return from_here_HK - below_HK

    @torch.no_grad()
    def lower(self, by: float) -> None:
        """Lowers the logit of every offset alike, by what leaves one of a head within bounds.

        It is the distribution with ``P(degree >= k) = sigmoid(l_k - by)``, and from
        ``sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))`` follows that of k,
        the last factor no less than ``SMALLEST_SHARE``.
        """
        offset_logits_HK = self._offset_logits()
        highest_H1, lowest_H1 = offset_logits_HK[:, :1], offset_logits_HK[:, -1:]
        most_H1 = (LARGEST_LOGIT + highest_H1).clamp_min(0)
        least_H1 = (lowest_H1 - LARGEST_LOGIT).clamp_max(0)
        by_H1 = torch.full_like(most_H1, by).minimum(most_H1).maximum(least_H1)
        shifted_HK = offset_logits_HK - by_H1
        left_HK, right_HK = shifted_HK[:, :-1], shifted_HK[:, 1:]
        between_HK = F.logsigmoid(left_HK) + F.logsigmoid(-right_HK)
        # Neighbours so alike that float32 cannot tell them apart would leave a logit of -inf.
        between_HK += torch.log((-torch.expm1(right_HK - left_HK)).clamp_min(SMALLEST_SHARE))
        logits_HK = torch.cat(
            [F.logsigmoid(-shifted_HK[:, :1]), between_HK, F.logsigmoid(shifted_HK[:, -1:])], -1
        )
        self.degree_weights_HK.copy_(logits_HK / SINGLE_LOGIT_GAIN)

    def extra_repr(self) -> str:
        return str(self.max_degree)
