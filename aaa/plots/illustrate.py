"""What a pattern looks like, without an encoder: on a text of so many tokens."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from aaa.masks import SparseMask
from aaa.patterns import FixedDiagonal, InLayers, LayerInput, LayerSite, Pattern
from aaa.patterns.base import TextInput
from aaa.plots.maps import Map, map_of

HIDDEN, HEADS = 8, 2  # of the encoder that is not there
# A gate is then open with probability 0.15, few enough for each to be seen.
ILLUSTRATIVE_LOGIT = -1.75
TRIES = 20  # draws until one has a gate open


def illustrate(name: str, pattern: Pattern, num_tokens: int) -> list[Map]:
    """A pattern's maps: one, or two for a pattern that is in some layers only.

    A fixed pattern is drawn as it is. What a learned one opens is an example: each gate is open at
    random, with probability 0.15. Where a pattern reads the text, embeddings and dependency tree
    are random too. The first head stands for all, and of diagonals that were copied from a model
    the first layer.
    """
    if isinstance(pattern, InLayers):
        return [
            map_of(example_mask(part, num_tokens), "\n".join([name, where, *_site(part)[1]]))
            for part, where in (
                (pattern.inside, f"layers {pattern.layers}"),
                (pattern.elsewhere, "all other layers"),
            )
        ]
    example = " (an example)" if pattern.learnable or pattern.wants else ""
    title = "\n".join([f"{name}{example}", *_site(pattern)[1]])
    return [map_of(example_mask(pattern, num_tokens), title)]


def example_mask(pattern: Pattern, num_tokens: int) -> SparseMask:
    """A mask that the pattern can have on a text of ``num_tokens`` tokens, always the same.

    Of a learned pattern it is one with some gate open; if there is hardly any (a text of two
    tokens, say), it may be without.
    """
    template = copy.deepcopy(pattern)
    part: Any
    for part in template.modules():
        if hasattr(part, "initial_logit"):
            part.initial_logit = ILLUSTRATIVE_LOGIT
        if hasattr(part, "max_degree"):  # so that the text is longer
            part.max_degree = min(part.max_degree, max(1, num_tokens // 3))
    least = _draw(template.closed(), num_tokens, seed=num_tokens).kept_cells()[0, 0]
    for seed in range(num_tokens, num_tokens + TRIES):
        example = _draw(template, num_tokens, seed)
        if not pattern.learnable or example.kept_cells()[0, 0] > least:
            break
    return example


@torch.no_grad()
def _draw(pattern: Pattern, num_tokens: int, seed: int) -> SparseMask:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bound = pattern.bind(_site(pattern)[0]).train()
        keep_BN = torch.ones(1, num_tokens, dtype=torch.bool)
        text = TextInput(torch.randn(1, num_tokens, HIDDEN), _some_tree(num_tokens))
        for part in bound.modules():
            if isinstance(part, Pattern) and "draws" in part.wants:
                part.begin_pass(text)
        return bound(LayerInput(keep_BN, torch.randn(1, num_tokens, HIDDEN), text))


def figure_1(num_tokens: int) -> list[Map]:
    """Figure 1 of the AAA paper: its five patterns.

    Which diagonals and axes the figure has is not said in the text; those here are ours.
    """
    keep_BN = torch.ones(1, num_tokens, dtype=torch.bool)

    def gates(*opened: int) -> Tensor:
        return torch.zeros(1, 1, num_tokens).index_fill(-1, torch.tensor(opened), 1.0)

    first, middle, last = num_tokens // 4, num_tokens // 2, num_tokens - 2
    local = SparseMask(keep_BN, diagonals_BHK=gates(0, 1))
    global_ = SparseMask(keep_BN, rows_BHN=gates(0), columns_BHN=gates(0))
    masks = {
        "(a) Local": local,
        "(b) Global": global_,
        "(c) Diagonal": SparseMask(keep_BN, diagonals_BHK=gates(0, middle - 1, last)),
        "(d) Axis": SparseMask(keep_BN, rows_BHN=gates(middle), columns_BHN=gates(first, last)),
        "(e) Local + Global": local | global_,
    }
    return [map_of(mask, title) for title, mask in masks.items()]


def _site(pattern: Pattern) -> tuple[LayerSite, list[str]]:
    """Where the pattern is drawn, and a line on it where copied diagonals differ by layer or head.

    Those fit an encoder of their source's shape alone.
    """
    for part in pattern.modules():
        if isinstance(part, FixedDiagonal):
            sets = part.distances
            layer, own = next((n, own) for n, own in enumerate(sets) if own is not None)
            which = [f"layer {layer}"] * (len(sets) > 1) + ["head 0"] * (len(own) > 1)
            site = LayerSite(layer, len(sets), HIDDEN, max(HEADS, len(own)))
            return site, [" · ".join(which)] if which else []
    return LayerSite(0, 1, HIDDEN, HEADS), []


def _some_tree(num_tokens: int) -> Tensor:
    """A dependency tree over all tokens whose heads stand at most three places before."""
    places = torch.arange(num_tokens)
    back = 1 + (torch.rand(num_tokens) * 3).long()
    return (places - back).clamp_min(0).unsqueeze(0)
