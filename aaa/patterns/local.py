"""Local attention: each token attends to its neighbours (Eq. 6, with offsets 0..size)."""

from __future__ import annotations

from typing import Literal

import torch

from aaa.masks import SparseMask
from aaa.patterns.base import LayerInput, Pattern
from aaa.patterns.ranked import check_one_for_all_lengths, check_size_or_density, pairs_at


class Local(Pattern):
    """Cells with ``|i - j| <= size``: the main diagonal and ``size`` neighbours on both sides.

    Closed form (paper, footnote 5): ``|B| = (2 size + 1) N - size (size + 1)`` for N > size.
    ``Local(0)`` is the main diagonal alone. This is the *neighbour* mask of Breaking BERT (Brahma
    et al., 2022). By ``density`` instead of a size it is comparable with that paper's other masks
    (``Random``, ``Syntax``, ``Lexical``): in a text of N tokens the nearest pairs are open, of the
    last distance the leftmost ones, until ``round(density N^2)`` cells are (ours).

    Note: ``size`` is a radius, as in Eq. 6. Longformer's code, and with it Long Range Arena's,
    counts both sides together, ``size // 2`` on each: that is ``window="total"``.

    Args:
        size: in tokens, 0 or more.
        density: share of open cells in (0, 1]; exactly one of the two is given.
        window: what ``size`` counts: ``radius``, one side, or ``total``, both sides.

    Raises:
        ValueError: if not exactly one is given, one is out of range, or ``window`` is unknown.
    """

    def __init__(
        self,
        size: int | None = None,
        density: float | None = None,
        window: Literal["radius", "total"] = "radius",
    ) -> None:
        super().__init__()
        check_size_or_density("Local", "size", size, 0, density)
        if window not in ("radius", "total"):
            raise ValueError(f"Local window is radius or total, not {window!r}")
        self.size, self.density, self.window = size, density, window

    def draw_ahead(self, longest: int) -> None:
        check_one_for_all_lengths(self, self.density is None)

    def forward(self, inputs: LayerInput) -> SparseMask:
        if self.density is not None:
            return _nearest_pairs(inputs, self.density)
        assert self.size is not None
        radius = self.size // 2 if self.window == "total" else self.size
        offsets = inputs.keep_BN.new_ones(1, 1, radius + 1).float()
        return SparseMask(inputs.keep_BN, diagonals_BHK=offsets)

    def extra_repr(self) -> str:
        if self.density is not None:
            return f"density={self.density}"
        return str(self.size) if self.window == "radius" else f"{self.size}, window=total"


def _nearest_pairs(inputs: LayerInput, density: float) -> SparseMask:
    """Whole diagonals as far as the pairs reach, and single cells of the one after them."""
    keep_BN = inputs.keep_BN
    lengths_B = keep_BN.sum(-1)
    pairs_B1 = pairs_at(density, lengths_B).unsqueeze(-1)
    distances_K = torch.arange(keep_BN.shape[-1], device=keep_BN.device)
    # Distance k has N - k pairs; distance 0, the main diagonal, counts for none.
    within_BK = ((lengths_B.unsqueeze(-1) - distances_K).clamp_min(0) * (distances_K > 0)).cumsum(
        -1
    )
    whole_BK = within_BK <= pairs_B1
    left_B1 = pairs_B1 - (within_BK * whole_BK).amax(-1, keepdim=True)
    distance_B1 = whole_BK.sum(-1, keepdim=True)
    row_BE = keep_BN.int().argmax(-1, keepdim=True) + torch.arange(
        int(left_B1.max()) if left_B1.numel() else 0, device=keep_BN.device
    )
    cells_BE2 = torch.stack([row_BE, row_BE + distance_B1], dim=-1)
    unused_BE1 = (row_BE - row_BE[:, :1] >= left_B1).unsqueeze(-1)
    cells_BE2 = cells_BE2.masked_fill(unused_BE1, -1)
    return SparseMask(
        keep_BN,
        diagonals_BHK=whole_BK.float().unsqueeze(1),
        edges_BE2=torch.cat([cells_BE2, cells_BE2.flip(-1)], dim=1),
    )
