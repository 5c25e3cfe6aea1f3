"""Attention between similar words: the lexical mask of Breaking BERT."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.masks import SparseMask
from aaa.patterns.base import LayerInput, Pattern
from aaa.patterns.local import Local
from aaa.patterns.ranked import best_pairs, check_size_or_density, nearest_first, pairs_at

STEPS = (
    1e6  # cosines that differ by less than 1 / STEPS count as equal, such as a word's with itself
)


class Lexical(Pattern):
    """Opens pairs of tokens whose words are similar.

    Breaking BERT (Brahma et al., 2022) names a mask by lexical similarity; the measure is ours:
    the cosine of the encoder's input embeddings as they are at the time, that is the rows of its
    word table (``get_input_embeddings``), before positions and token types are added. No gradient
    goes through it. Special tokens take part as any other.

    Args:
        size: to how many of the most similar other tokens each is open, and they to it, so that a
            token may have more; 1 or more.
        density: share of open cells in (0, 1]; exactly one of the two is given. The most similar
            pairs of the text are opened until ``round(density N^2)`` cells are.

    Among equals (a word that occurs several times) the nearest comes first.

    Raises:
        ValueError: if not exactly one is given, or it is out of range.
    """

    def __init__(self, size: int | None = None, density: float | None = None) -> None:
        super().__init__()
        check_size_or_density("Lexical", "size", size, 1, density)
        self.size, self.density = size, density

    @property
    def wants(self) -> frozenset[str]:
        return frozenset({"embeddings"})

    def of_lengths(self) -> Pattern:
        return super().of_lengths() if self.density is None else Local(density=self.density)

    def forward(self, inputs: LayerInput) -> SparseMask:
        edges_BE2 = inputs.text.once(
            ("lexical", self.size, self.density), lambda: self._edges(inputs)
        )
        self_loop = inputs.keep_BN.new_ones(1, 1, 1).float()
        return SparseMask(inputs.keep_BN, diagonals_BHK=self_loop, edges_BE2=edges_BE2)

    def _edges(self, inputs: LayerInput) -> Tensor:
        assert inputs.text.embeddings_BND is not None, "Lexical reads the input embeddings"
        keep_BN = inputs.keep_BN
        # In float64, rounded: a batch's shape changes float32's last bits, and so which pairs tie.
        words_BND = F.normalize(inputs.text.embeddings_BND.double(), dim=-1)
        similar_BNN = (words_BND @ words_BND.transpose(-1, -2) * STEPS).round().long()
        if self.density is not None:
            return best_pairs(similar_BNN, keep_BN, pairs_at(self.density, keep_BN.sum(-1)))
        assert self.size is not None
        open_BNN = _most_similar(similar_BNN, keep_BN, self.size)
        return best_pairs(open_BNN.long(), keep_BN, open_BNN.triu(1).sum((-2, -1)))

    def extra_repr(self) -> str:
        return str(self.size) if self.density is None else f"density={self.density}"


def _most_similar(similar_BNN: Tensor, keep_BN: Tensor, size: int) -> Tensor:
    """Where j is among the ``size`` most similar others of i, or i among those of j; bool."""
    others_BNN = keep_BN[:, :, None] & keep_BN[:, None, :]
    others_BNN = others_BNN & ~torch.eye(
        keep_BN.shape[-1], dtype=torch.bool, device=keep_BN.device
    )
    ranks_BNN = nearest_first(similar_BNN)
    ranks_BNN = ranks_BNN.masked_fill(~others_BNN, torch.iinfo(ranks_BNN.dtype).min)
    best_BNK = ranks_BNN.argsort(dim=-1, descending=True, stable=True)[..., :size]
    open_BNN = torch.zeros_like(others_BNN).scatter_(-1, best_BNK, True) & others_BNN
    return open_BNN | open_BNN.transpose(-1, -2)
