"""Random attention, BigBird's third part."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from aaa.masks import SparseMask
from aaa.patterns.base import LayerInput, LayerSite, Pattern

Reading = Literal["measured", "text"]
TILE = 128  # Hugging Face's default max_seq_length, and SparseBERT's map


class Random(Pattern):
    """Single cells at random, the same in every forward pass, different from layer to layer.

    The paper's text and its figures disagree on what size r means. Its text (section 2.2): the
    number of open cells divided by 2N, so 2 N r cells of the sample's own map. Its reported rho
    (Tables 1, 4 and 5) fits a density of r / 128 in 16 of 16 cells: r cells a row of a map 128
    wide, cropped to the sample. ``reading="measured"``, the default, reproduces those figures;
    ``reading="text"`` does what the text says. Beyond 128 tokens ``measured`` draws r cells a row
    in every further 128 columns, so that the density stays what it is (ours).

    The main diagonal is open too, so that no row is empty.

    Args:
        size: r above.
        seed: of the drawing; together with the layer it fixes every cell.
        reading: what r means.

    Raises:
        ValueError: if ``size`` is not within 1..128 or the reading is unknown.
    """

    def __init__(self, size: int, seed: int = 0, reading: Reading = "measured") -> None:
        super().__init__()
        if not 1 <= size <= TILE:
            raise ValueError(
                f"Random size is a number of cells a row, from 1 to {TILE}, not {size}"
            )
        if reading not in get_args(Reading):
            known = ", ".join(get_args(Reading))
            raise ValueError(f"Random knows no reading {reading!r}; known readings: {known}")
        self.size, self.seed, self.reading = size, seed, reading
        self.layer = 0

    def bind(self, site: LayerSite) -> Pattern:
        bound = copy.deepcopy(self)
        bound.layer = site.layer
        return bound

    def forward(self, inputs: LayerInput) -> SparseMask:
        keep_BN = inputs.keep_BN
        self_loop = keep_BN.new_ones(1, 1, 1).float()
        if self.reading == "measured":
            edges_BE2 = self._cropped(keep_BN)
        else:
            edges_BE2 = self._sample_by_sample(keep_BN)
        return SparseMask(keep_BN, diagonals_BHK=self_loop, edges_BE2=edges_BE2)

    def _cropped(self, keep_BN: Tensor) -> Tensor:
        batch, num_tokens = keep_BN.shape
        edges_E2 = _tiled_edges(num_tokens, self.size, self.seed, self.layer).to(keep_BN.device)
        return _place(edges_E2.expand(batch, -1, -1), keep_BN)

    def _sample_by_sample(self, keep_BN: Tensor) -> Tensor:
        edges = [
            _uniform_edges(length, 2 * length * self.size, self.seed, self.layer)
            for length in keep_BN.sum(-1).tolist()
        ]
        edges_BE2 = torch.nn.utils.rnn.pad_sequence(edges, batch_first=True, padding_value=-1)
        return _place(edges_BE2.to(keep_BN.device), keep_BN)

    def extra_repr(self) -> str:
        reading = "" if self.reading == "measured" else f", reading={self.reading!r}"
        return f"{self.size}{reading}"


def _place(edges_BE2: Tensor, keep_BN: Tensor) -> Tensor:
    """Counts edges from each sample's first real token; drops those that leave the sample."""
    start_B11 = keep_BN.int().argmax(-1)[:, None, None]
    length_B11 = keep_BN.sum(-1)[:, None, None]
    inside_BE1 = ((edges_BE2 >= 0) & (edges_BE2 < length_B11)).all(-1, keepdim=True)
    return torch.where(inside_BE1, edges_BE2 + start_B11, -1)


def _generator(*numbers: int) -> torch.Generator:
    """A generator whose stream depends on every one of the numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (2**63 - 1)
    return torch.Generator().manual_seed(mixed)


@lru_cache(maxsize=512)
def _tiled_edges(num_tokens: int, per_row: int, seed: int, layer: int) -> Tensor:
    """``per_row`` cells in each row of each 128 x 128 tile, cropped to num_tokens; (E, 2)."""
    tiles = range(-(-num_tokens // TILE))
    edges = []
    for tile_row in tiles:
        for tile_column in tiles:
            scores = torch.rand(
                TILE, TILE, generator=_generator(seed, layer, tile_row, tile_column)
            )
            columns = scores.topk(per_row, dim=-1).indices + tile_column * TILE
            rows = torch.arange(TILE).unsqueeze(-1).expand_as(columns) + tile_row * TILE
            edges.append(torch.stack([rows, columns], dim=-1).view(-1, 2))
    edges_E2 = torch.cat(edges)
    return edges_E2[(edges_E2 < num_tokens).all(-1)]


@lru_cache(maxsize=4096)
def _uniform_edges(length: int, count: int, seed: int, layer: int) -> Tensor:
    """``count`` different cells (at most all) of a length x length map; (E, 2)."""
    cells = torch.randperm(length**2, generator=_generator(seed, layer, length))[:count]
    return torch.stack([cells // max(length, 1), cells % max(length, 1)], dim=-1)
