"""Full attention: every token attends to every token."""

from __future__ import annotations

from aaa.masks import SparseMask
from aaa.patterns.base import LayerInput, Pattern


class Full(Pattern):
    """Every cell open: the encoder as it was (rho = 0)."""

    def forward(self, inputs: LayerInput) -> SparseMask:
        num_tokens = inputs.keep_BN.shape[-1]
        every_row = inputs.keep_BN.new_ones(1, 1, num_tokens).float()
        return SparseMask(inputs.keep_BN, rows_BHN=every_row)
