"""Attention along the dependency tree: the syntax mask of Breaking BERT."""

from __future__ import annotations

import torch
from torch import Tensor

from aaa.masks import SparseMask
from aaa.patterns.base import LayerInput, Pattern
from aaa.patterns.local import Local
from aaa.patterns.ranked import best_pairs, check_size_or_density, pairs_at

CONTINUES = -2  # in heads_BN: a further piece of the word that the token before belongs to


class Syntax(Pattern):
    """Opens pairs of tokens that are near each other in the text's dependency tree.

    Breaking BERT (Brahma et al., 2022) names a mask by syntax; hops, the treatment of word pieces
    and of special tokens are ours. The edges of the tree have no direction. All pieces of a word
    stand at the same place in it: they are open to each other and to all pieces of every word
    within reach.

    A model is called with the trees: ``model(**batch, syntax_heads=heads_BN)``, int64,
    for each token the position of the token that heads its word, counted from the first real
    token of its sample; a root has its own position; -2 stands for a further piece of the word of
    the token before, -1 fills up padding. Tokens in different trees are out of each other's
    reach. (Hugging Face's Trainer drops what it does not know: ``remove_unused_columns=False``.)
    ``aaa.data.syntax`` makes such heads from parses, with all sentences of a text and its
    further special tokens hanging from [CLS], which takes the part of the artificial root of
    dependency grammar: so [CLS] is one hop from the main verb of each sentence, and another
    sentence is reached through it alone.

    Args:
        hops: how many edges of the tree may lie between two words, 0 or more; 0 joins nothing but
            the pieces of a word.
        density: share of open cells in (0, 1]; exactly one of the two is given. The pairs with the
            fewest hops between them are opened, among equals the nearest in the text first and
            those in different trees last, until ``round(density N^2)`` cells are open.

    Raises:
        ValueError: if not exactly one is given, or it is out of range; in a forward pass without
            ``syntax_heads``, or with ones that are no trees over the batch's tokens.
    """

    def __init__(self, hops: int | None = None, density: float | None = None) -> None:
        super().__init__()
        check_size_or_density("Syntax", "hops", hops, 0, density)
        self.hops, self.density = hops, density

    @property
    def wants(self) -> frozenset[str]:
        return frozenset({"heads"})

    def of_lengths(self) -> Pattern:
        return super().of_lengths() if self.density is None else Local(density=self.density)

    def forward(self, inputs: LayerInput) -> SparseMask:
        edges_BE2 = inputs.text.once(
            ("syntax", self.hops, self.density), lambda: self._edges(inputs)
        )
        self_loop = inputs.keep_BN.new_ones(1, 1, 1).float()
        return SparseMask(inputs.keep_BN, diagonals_BHK=self_loop, edges_BE2=edges_BE2)

    def _edges(self, inputs: LayerInput) -> Tensor:
        keep_BN, heads_BN = inputs.keep_BN, inputs.text.heads_BN
        if heads_BN is None:
            raise ValueError(
                f"{self} needs the dependency trees of the batch: call the model with "
                "syntax_heads=, a tensor of shape (batch, tokens)"
            )
        hops_BNN = tree_distances(_checked(heads_BN, keep_BN), keep_BN)
        if self.density is not None:
            num_pairs_B = pairs_at(self.density, keep_BN.sum(-1))
        else:
            assert self.hops is not None
            reach = min(
                self.hops, keep_BN.shape[-1]
            )  # no tree is wider, other trees are out of it
            near_BNN = (hops_BNN <= reach) & keep_BN[:, :, None] & keep_BN[:, None, :]
            num_pairs_B = near_BNN.triu(1).sum((-2, -1))
        return best_pairs(-hops_BNN, keep_BN, num_pairs_B)

    def extra_repr(self) -> str:
        return f"hops={self.hops}" if self.density is None else f"density={self.density}"


def tree_distances(heads_BN: Tensor, keep_BN: Tensor) -> Tensor:
    """Edges between the words of any two tokens, int64 (B, N, N); 2N where no path joins them.

    With depth(i) words on the path from i to its root, i among them, and common(i, j) words on
    both paths: ``depth(i) + depth(j) - 2 common(i, j)``.

    Raises:
        ValueError: if the heads run in a circle.
    """
    batch, num_tokens = heads_BN.shape
    place_BN = torch.arange(num_tokens, device=heads_BN.device).expand(batch, -1)
    word_BN = place_BN.masked_fill(heads_BN == CONTINUES, 0).cummax(-1).values
    start_B1 = keep_BN.int().argmax(-1, keepdim=True)
    parent_BN = torch.where(heads_BN >= 0, heads_BN + start_B1, place_BN)
    parent_BN = word_BN.gather(-1, parent_BN)  # a head may be named by any piece of its word
    # In float64, which counts exactly and which autocast leaves alone.
    path_BNN = torch.zeros(
        batch, num_tokens, num_tokens, dtype=torch.float64, device=heads_BN.device
    )
    current_BN = word_BN
    for _ in range(num_tokens):
        path_BNN.scatter_(-1, current_BN.unsqueeze(-1), 1.0)
        above_BN = parent_BN.gather(-1, current_BN)
        if torch.equal(above_BN, current_BN):
            break
        current_BN = above_BN
    else:
        raise ValueError("syntax_heads run in a circle: a word is above itself in its tree")
    common_BNN = path_BNN @ path_BNN.transpose(-1, -2)
    depth_BN = path_BNN.sum(-1)
    hops_BNN = depth_BN[:, :, None] + depth_BN[:, None, :] - 2 * common_BNN
    return hops_BNN.masked_fill(common_BNN == 0, 2 * num_tokens).long()


def _checked(heads_BN: Tensor, keep_BN: Tensor) -> Tensor:
    if heads_BN.shape != keep_BN.shape:
        raise ValueError(
            f"syntax_heads have the shape {tuple(heads_BN.shape)}, but the batch's tokens "
            f"{tuple(keep_BN.shape)}"
        )
    heads_BN = heads_BN.masked_fill(~keep_BN, -1)
    first_BN = keep_BN & (keep_BN.cumsum(-1) == 1)
    inside_BN = (heads_BN >= 0) & (heads_BN < keep_BN.sum(-1, keepdim=True))
    if not (inside_BN | (heads_BN == CONTINUES) & ~first_BN | ~keep_BN).all():
        raise ValueError(
            "syntax_heads are positions among a sample's own real tokens, from 0 on, or -2 for a "
            "further piece of the word of the token before; only padding has -1"
        )
    return heads_BN
