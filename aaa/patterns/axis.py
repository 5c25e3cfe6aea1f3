"""Adaptive Axis Attention: learned rows and columns of the attention map (Eq. 11, 12)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaa.masks import SparseMask
from aaa.numbers import check_bool, check_finite
from aaa.patterns.base import LayerInput, LayerSite, Pattern
from aaa.patterns.gumbel import gumbel_sigmoid, lower_level
from aaa.patterns.local import Local


class ImportanceLayer(nn.Linear):
    """In float32 also under autocast: bf16 logits would tie the gates of alike tokens."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight.float(), self.bias.float())


class Axis(Pattern):
    """Opens the whole row and the whole column of each token that it finds important.

    An importance layer for rows and one for columns read the hidden states that enter the
    self-attention; each token's logit becomes a 0/1 indicator by Gumbel-sigmoid (Eq. 11) and
    ``B_ij = row_i + column_j - row_i column_j`` (Eq. 12). The main diagonal is always open, so
    that no row is empty (section 4.2). The paper pairs it with two neighbours on both sides:
    ``Axis() | Local(2)``; several of its reported rho cannot be reached with that floor.

    What the paper leaves open and is ours: heads share the gates, unless ``per_head``; and the
    importance layers start at weight 0 and a positive bias, so that fine-tuning starts from
    (nearly) full attention.

    Args:
        initial_logit: the bias at the start; a gate is open with probability sigmoid of it.
        temperature: of the Gumbel-sigmoid.
        rows, columns: whether rows, and whether columns, can be opened; at least one of them.
        per_head: whether each head chooses its own tokens.

    Raises:
        ValueError: if an argument is of another kind, the temperature is not positive, or neither
            rows nor columns are wanted.
    """

    row: nn.Linear  # the importance layers are there once the pattern is bound to a layer
    column: nn.Linear

    def __init__(
        self,
        initial_logit: float = 2.0,
        temperature: float = 1.0,
        rows: bool = True,
        columns: bool = True,
        per_head: bool = False,
    ) -> None:
        super().__init__()
        check_finite("Axis", "initial_logit", initial_logit)
        check_finite("Axis", "temperature", temperature, above=0)
        for option, value in {"rows": rows, "columns": columns, "per_head": per_head}.items():
            check_bool(f"Axis {option}", value)
        if not (rows or columns):
            raise ValueError("Axis opens rows, columns or both; without either use Local(0)")
        self.initial_logit, self.temperature = initial_logit, temperature
        self.rows, self.columns = rows, columns
        self.per_head = per_head

    def bind(self, site: LayerSite) -> Pattern:
        bound = copy.deepcopy(self)
        if self.rows:
            bound.row = self._importance_layer(site)
        if self.columns:
            bound.column = self._importance_layer(site)
        return bound

    def closed(self) -> Pattern:
        return Local(0)

    def forward(self, inputs: LayerInput) -> SparseMask:
        assert inputs.hidden_BND is not None, "an Axis pattern reads the hidden states"
        return SparseMask(
            inputs.keep_BN,
            rows_BHN=self._gates(self.row, inputs) if self.rows else None,
            columns_BHN=self._gates(self.column, inputs) if self.columns else None,
            diagonals_BHK=inputs.keep_BN.new_ones(1, 1, 1).float(),
        )

    def lower(self, by: float) -> None:
        for importance in self.children():
            assert isinstance(importance, nn.Linear)
            lower_level(importance.bias, by)

    def extra_repr(self) -> str:
        usual = {"rows": True, "columns": True, "per_head": False}
        options = {name: getattr(self, name) for name in usual}
        return ", ".join(f"{k}={options[k]}" for k in usual if options[k] != usual[k])

    def _importance_layer(self, site: LayerSite) -> nn.Linear:
        layer = ImportanceLayer(site.hidden_size, site.num_heads if self.per_head else 1)
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, self.initial_logit)
        return layer

    def _gates(self, importance: nn.Linear, inputs: LayerInput) -> Tensor:
        assert inputs.hidden_BND is not None
        logits_BNH = importance(inputs.hidden_BND)
        gates_BNH = gumbel_sigmoid(logits_BNH, self.training, self.temperature, self.noise_scale)
        return (gates_BNH * inputs.keep_BN.unsqueeze(-1)).transpose(1, 2)
