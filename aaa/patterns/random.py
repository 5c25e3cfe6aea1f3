"""Random attention, BigBird's third part."""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor

from aaa.masks import SparseMask
from aaa.names import known_name
from aaa.numbers import check_whole
from aaa.patterns.base import LayerInput, LayerSite, Pattern
from aaa.patterns.drawn import TILE, tiled_edges, uniform_edges, uniform_pairs
from aaa.patterns.ranked import check_one_for_all_lengths, check_size_or_density, pairs_at

Reading = Literal["measured", "text"]


class Random(Pattern):
    """Single cells at random, the same in every forward pass, different from layer to layer.

    (In ALBERT, whose layers share one self-attention, they share its cells as well.)

    The paper's text and its figures disagree on what size r means. Its text (section 2.2): the
    number of open cells divided by 2N, so 2 N r cells of the sample's own map. Its reported rho
    (Table 4) fits a density of r / 128 in 16 of 16 cells, within a point: r cells a row of a map
    128 wide, cropped to the sample. ``reading="measured"``, the default, reproduces those figures;
    ``reading="text"`` does what the text says. Beyond 128 tokens ``measured`` draws r cells a row
    in every further 128 columns, so that the density stays what it is (ours).

    By ``density`` it is the *random* mask of Breaking BERT (Brahma et al., 2022), comparable with
    that paper's other masks: symmetric pairs, drawn anew for each length of a text, are open until
    ``round(density N^2)`` cells are (ours; the other two readings are not symmetric).

    The main diagonal is open too, so that no row is empty.

    Args:
        size: r above, from 1 to 128.
        seed: of the drawing, 0 or more; together with the layer it fixes every cell.
        reading: what r means; a density has one meaning alone.
        density: share of open cells in (0, 1], the main diagonal counted; exactly one of size and
            density is given.

    Raises:
        ValueError: if not exactly one of size and density is given, it or the seed is out of
            range, or the reading is unknown.
    """

    def __init__(
        self,
        size: int | None = None,
        seed: int = 0,
        reading: Reading = "measured",
        density: float | None = None,
    ) -> None:
        super().__init__()
        check_size_or_density("Random", "size", size, 1, density)
        if size is not None and size > TILE:
            raise ValueError(f"Random size is at most {TILE} cells a row, not {size}")
        check_whole("Random", "seed", seed, least=0)
        known_name(reading, get_args(Reading), "Random's reading")
        self.size, self.seed, self.reading, self.density = size, seed, reading, density
        self.layer = 0
        self._ahead_E2: Tensor | None = None

    def bind(self, site: LayerSite) -> Pattern:
        bound = copy.deepcopy(self)
        bound.layer = site.layer
        return bound

    def draw_ahead(self, longest: int) -> None:
        check_one_for_all_lengths(self, self.size is not None and self.reading == "measured")
        assert self.size is not None
        self._ahead_E2 = tiled_edges(longest, self.size, self.seed, self.layer)

    def forward(self, inputs: LayerInput) -> SparseMask:
        keep_BN = inputs.keep_BN
        self_loop = keep_BN.new_ones(1, 1, 1).float()
        if self.size is not None and self.reading == "measured":
            edges_BE2 = self._cropped(keep_BN, self.size)
        else:
            edges_BE2 = self._sample_by_sample(keep_BN)
        return SparseMask(keep_BN, diagonals_BHK=self_loop, edges_BE2=edges_BE2)

    def _cropped(self, keep_BN: Tensor, size: int) -> Tensor:
        batch, num_tokens = keep_BN.shape
        edges_E2 = self._ahead_E2
        if edges_E2 is None:
            edges_E2 = tiled_edges(num_tokens, size, self.seed, self.layer)
        return _place(edges_E2.to(keep_BN.device).expand(batch, -1, -1), keep_BN)

    def _sample_by_sample(self, keep_BN: Tensor) -> Tensor:
        edges = [self._drawn(length) for length in keep_BN.sum(-1).tolist()]
        edges_BE2 = torch.nn.utils.rnn.pad_sequence(edges, batch_first=True, padding_value=-1)
        return _place(edges_BE2.to(keep_BN.device), keep_BN)

    def _drawn(self, length: int) -> Tensor:
        if self.density is not None:
            pairs = int(pairs_at(self.density, torch.tensor(length)))
            return uniform_pairs(length, pairs, self.seed, self.layer)
        assert self.size is not None
        return uniform_edges(length, 2 * length * self.size, self.seed, self.layer)

    def extra_repr(self) -> str:
        if self.density is not None:
            return f"density={self.density}"
        reading = "" if self.reading == "measured" else f", reading={self.reading!r}"
        return f"{self.size}{reading}"


def _place(edges_BE2: Tensor, keep_BN: Tensor) -> Tensor:
    """Counts edges from each sample's first real token; drops those that leave the sample."""
    start_B11 = keep_BN.int().argmax(-1)[:, None, None]
    length_B11 = keep_BN.sum(-1)[:, None, None]
    inside_BE1 = ((edges_BE2 >= 0) & (edges_BE2 < length_B11)).all(-1, keepdim=True)
    return torch.where(inside_BE1, edges_BE2 + start_B11, -1)
