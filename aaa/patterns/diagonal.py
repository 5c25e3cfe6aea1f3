"""Learnable diagonals: which distances |i - j| are attended to (section 4.1; SparseBERT)."""

from __future__ import annotations

import copy
import logging
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaa.masks import SparseMask
from aaa.names import known_name
from aaa.numbers import check_finite, check_whole
from aaa.patterns.base import DistanceGate, LayerInput, LayerSite, Pattern, TextInput
from aaa.patterns.gumbel import SINGLE_LOGIT_GAIN, gumbel_sigmoid, lower_level
from aaa.patterns.local import Local

log = logging.getLogger(__name__)

Scope = Literal["task", "layer", "head"]


class Diagonal(Pattern):
    """Opens every cell whose distance ``|i - j|`` has an open gate, whatever the text says.

    One gate a distance from 1 to ``num_distances``, by Gumbel-sigmoid; distance 0, the main
    diagonal, has none and is always open, so that no row is empty. The paper learns one set of
    diagonals for the model (task-adaptive, Table 3) or one a layer (task- and layer-adaptive) and
    pairs them with ``Global(1)``; SparseBERT (Shi et al., 2021) learns one a head, shared by the
    layers. In training one draw serves the whole batch and, for ``task``, all layers of a forward
    pass, as in SparseBERT.

    A distance that no training text was long enough to have stays closed at evaluation, as do
    those beyond ``num_distances``; this is said once in the log when a text is that long. Before
    any training the gates count as they stand (ours).

    What the paper leaves open and is ours: gates start at ``initial_logit``, open with probability
    sigmoid of it, so that fine-tuning starts from nearly full attention; SparseBERT, which
    pre-trains, starts at 1e-3 times a normal variable, that is at a half.

    Args:
        scope: what has a set of its own: ``task`` (one for the model), ``layer``, or ``head``
            (of each layer).
        num_distances: number of gates, in tokens.
        initial_logit: of every gate.
        temperature: of the Gumbel-sigmoid.

    Raises:
        ValueError: if the scope is unknown, a number is none, there is no gate or the temperature
            is not positive.
    """

    distance_weights_HK: nn.Parameter  # there once bound to a layer; entry k is of distance k + 1
    seen_tokens: Tensor  # length of the longest text in training, 0 before any

    def __init__(
        self,
        scope: Scope = "layer",
        num_distances: int = 128,
        initial_logit: float = 2.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        known_name(scope, get_args(Scope), "Diagonal scope")
        check_whole("Diagonal", "num_distances", num_distances, least=1)
        check_finite("Diagonal", "initial_logit", initial_logit)
        check_finite("Diagonal", "temperature", temperature, above=0)
        self.scope, self.num_distances = scope, num_distances
        self.initial_logit, self.temperature = initial_logit, temperature
        self.register_buffer("seen_tokens", torch.zeros((), dtype=torch.long))
        self.speaks = True  # one of an encoder's diagonals tells of texts that are too long
        self.longest = 0  # text that was looked at for that

    def bind(self, site: LayerSite) -> Pattern:
        first = self not in site.shared
        if self.scope == "task" and not first:
            return site.shared[self]
        bound = copy.deepcopy(self)
        num_sets = site.num_heads if self.scope == "head" else 1
        initial_weight = self.initial_logit / SINGLE_LOGIT_GAIN
        weights_HK = torch.full((num_sets, self.num_distances), initial_weight)
        bound.distance_weights_HK = nn.Parameter(weights_HK)
        bound.speaks = first
        site.shared.setdefault(self, bound)
        return bound

    def closed(self) -> Pattern:
        return Local(0)

    @property
    def wants(self) -> frozenset[str]:
        return frozenset({"draws"} if self.scope == "task" else ())

    def begin_pass(self, text: TextInput) -> None:
        # Not by the first layer: its draw would be missing when checkpointing runs it again.
        if self.scope == "task":
            text.made[self] = self._gates()

    def forward(self, inputs: LayerInput) -> SparseMask:
        if self.training:
            self._see(inputs.keep_BN)
        self._tell_of_long_texts(inputs.keep_BN)
        drawn_HK = inputs.text.made.get(self)
        gates_HK = self._gates() if drawn_HK is None else drawn_HK
        diagonals_HK = F.pad(gates_HK, (1, 0), value=1.0)
        return SparseMask(inputs.keep_BN, diagonals_BHK=diagonals_HK.unsqueeze(0))

    def unseen_distances(self) -> int:
        """How many of the distances with a gate no text in training was long enough to have."""
        return max(0, self.num_distances - max(0, int(self.seen_tokens) - 1))

    def lower(self, by: float) -> None:
        lower_level(self.distance_weights_HK, by, SINGLE_LOGIT_GAIN)

    def distance_gates(self) -> list[DistanceGate]:
        num_sets = len(self.distance_weights_HK)
        return [
            DistanceGate(self.distance_weights_HK, (head, k), k + 1, heads=1 / num_sets)
            for head in range(num_sets)
            for k in self._seen_K().nonzero().flatten().tolist()
        ]

    def synchronise(self) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self.seen_tokens, torch.distributed.ReduceOp.MAX)

    def extra_repr(self) -> str:
        return self.scope

    def _gates(self) -> Tensor:
        logits_HK = SINGLE_LOGIT_GAIN * self.distance_weights_HK.float()
        gates_HK = gumbel_sigmoid(logits_HK, self.training, self.temperature, self.noise_scale)
        return gates_HK if self.training else gates_HK * self._seen_K()

    def _seen_K(self) -> Tensor:
        """Which distances have been seen in training; all of them before any training."""
        distances_K = torch.arange(1, self.num_distances + 1, device=self.seen_tokens.device)
        return (distances_K < self.seen_tokens) | (self.seen_tokens == 0)

    @torch.no_grad()
    def _see(self, keep_BN: Tensor) -> None:
        self.seen_tokens.copy_(torch.maximum(self.seen_tokens, keep_BN.sum(-1).max()))

    def _tell_of_long_texts(self, keep_BN: Tensor) -> None:
        # Each length is looked at once, since reading a number from a GPU waits for it.
        # (A compiled or exported graph cannot speak.)
        if torch.compiler.is_compiling() or not self.speaks or keep_BN.shape[-1] <= self.longest:
            return
        self.longest = keep_BN.shape[-1]
        length, reach = int(keep_BN.sum(-1).max()), self.num_distances + 1
        if not self.training:
            reach = min(reach, int(self.seen_tokens) or reach)
        if length > reach:
            self.speaks = False
            why = "have no gate" if reach > self.num_distances else "were not seen in training"
            log.warning(
                "a text of %d tokens: %d of its %d distances, from %d on, %s and stay closed",
                length, length - reach, length - 1, reach, why,
            )  # fmt: skip
