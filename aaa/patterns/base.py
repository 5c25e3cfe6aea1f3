"""What every pattern is: a rule that reads a layer's hidden states and opens cells."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from aaa.masks import SparseMask


@dataclass(frozen=True)
class LayerSite:
    """The self-attention that a pattern is bound to.

    ``layer`` counts from 0 over the self-attentions of the encoder; ``hidden_size`` is the last
    axis of the hidden states that this self-attention receives.
    """

    layer: int
    num_layers: int
    hidden_size: int
    num_heads: int


@dataclass(frozen=True)
class LayerInput:
    """What a pattern may look at in one forward pass of its layer.

    ``hidden_BND`` are the states that enter the self-attention; a pattern without gates never
    reads them, so they may be None for it. ``keep_BN`` is true for real tokens.
    """

    keep_BN: Tensor
    hidden_BND: Tensor | None = None


class Pattern(nn.Module):
    """A rule, hidden states of a layer -> mask. ``a | b`` is the union of two (Eq. 8).

    A pattern as a user writes it, ``Axis() | Local(2)``, is a template without parameters;
    ``bind`` makes one layer's copy of it with its gates.
    """

    noise_scale: float = 1.0  # of the noise with which gates are drawn in training

    def bind(self, site: LayerSite) -> Pattern:
        """A copy of this pattern for one self-attention, with the parameters it needs there."""
        return copy.deepcopy(self)

    def closed(self) -> Pattern:
        """What is left of this pattern when all its gates are closed: the sparsest it can get."""
        return self

    def forward(self, inputs: LayerInput) -> SparseMask:
        """The mask for a batch. No row of a real token may be empty."""
        raise NotImplementedError

    @property
    def learnable(self) -> bool:
        """Whether the pattern has gates, so that its sparsity is learned."""
        return self.closed() is not self

    def __or__(self, other: Pattern) -> Union:
        if not isinstance(other, Pattern):
            return NotImplemented
        return Union(self, other)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class Union(Pattern):
    """All cells that at least one of the given patterns opens (the OR of Eq. 8)."""

    def __init__(self, *patterns: Pattern) -> None:
        super().__init__()
        if not patterns:
            raise ValueError(
                "Union needs at least one pattern, for example Union(Local(2), Global(1))"
            )
        for pattern in patterns:
            if not isinstance(pattern, Pattern):
                raise ValueError(f"Union takes patterns, not {pattern!r}")
        self.patterns = nn.ModuleList(_flatten(patterns))

    def __iter__(self) -> Iterator[Pattern]:
        return iter(self.patterns)  # type: ignore[arg-type]

    def bind(self, site: LayerSite) -> Pattern:
        return Union(*(pattern.bind(site) for pattern in self))

    def closed(self) -> Pattern:
        return Union(*(pattern.closed() for pattern in self)) if self.learnable else self

    @property
    def learnable(self) -> bool:
        return any(pattern.learnable for pattern in self)

    def forward(self, inputs: LayerInput) -> SparseMask:
        first, *others = self
        mask = first(inputs)
        for pattern in others:
            mask = mask | pattern(inputs)
        return mask

    def __str__(self) -> str:
        return " | ".join(str(pattern) for pattern in self)


def union(**parts: Pattern) -> Pattern:
    """The union of named patterns, for configs: ``pattern.local.size=1`` then reaches one part."""
    return Union(*parts.values())


def _flatten(patterns: tuple[Pattern, ...]) -> Iterator[Pattern]:
    for pattern in patterns:
        if isinstance(pattern, Union):
            yield from pattern
        else:
            yield pattern
