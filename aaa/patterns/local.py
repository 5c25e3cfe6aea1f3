"""Local attention: each token attends to its neighbours (Eq. 6, with offsets 0..size)."""

from __future__ import annotations

from aaa.masks import SparseMask
from aaa.patterns.base import LayerInput, Pattern


class Local(Pattern):
    """Cells with ``|i - j| <= size``: the main diagonal and ``size`` neighbours on both sides.

    Closed form (paper, footnote 5): ``|B| = (2 size + 1) N - size (size + 1)`` for N > size.
    ``Local(0)`` is the main diagonal alone.

    Note: ``size`` is a radius, as in Eq. 6, not a total window as in Longformer's code.

    Raises:
        ValueError: if ``size`` is negative.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 0:
            raise ValueError(f"Local size is a radius in tokens of 0 or more, not {size}")
        self.size = size

    def forward(self, inputs: LayerInput) -> SparseMask:
        offsets = inputs.keep_BN.new_ones(1, 1, self.size + 1).float()
        return SparseMask(inputs.keep_BN, diagonals_BHK=offsets)

    def extra_repr(self) -> str:
        return str(self.size)
