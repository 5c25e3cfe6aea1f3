"""Global attention: the first tokens attend to all, and all attend to them (Eq. 7)."""

from __future__ import annotations

from aaa.masks import SparseMask
from aaa.numbers import check_whole
from aaa.patterns.base import LayerInput, Pattern


class Global(Pattern):
    """Cells with ``i < size`` or ``j < size``, counted over the real tokens of each sample.

    With ``Local(a) | Global(b)`` and ``s = a + b``, ``|B| = (2s + 1) N - s (s + 1)``: the size of
    the union depends on the sum alone. ``Global(1)`` makes [CLS] global.

    Raises:
        ValueError: if ``size`` is no whole number or not positive.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        check_whole("Global", "size", size, least=1)
        self.size = size

    def forward(self, inputs: LayerInput) -> SparseMask:
        # The rank among real tokens, not the index: padding may stand on the left.
        rank_BN = inputs.keep_BN.long().cumsum(-1) - 1
        chosen_BHN = ((rank_BN < self.size) & inputs.keep_BN).float().unsqueeze(1)
        return SparseMask(inputs.keep_BN, rows_BHN=chosen_BHN, columns_BHN=chosen_BHN)

    def extra_repr(self) -> str:
        return str(self.size)
