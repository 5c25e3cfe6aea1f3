"""What every pattern is: a rule that reads a layer's hidden states and opens cells."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aaa.masks import SparseMask

HOME = "aaa.patterns."  # where the classes live that a saved pattern may name


@dataclass(frozen=True)
class LayerSite:
    """The self-attention that a pattern is bound to.

    ``layer`` counts from 0 over the layers of the encoder; ``hidden_size`` is the last axis of the
    hidden states that this self-attention receives; ``num_heads`` is 0 where no encoder is at
    hand; ``calls`` is the number of layers, from ``layer`` on, that share it (ALBERT).

    ``shared`` is one for all sites of an encoder: what a pattern's bound copies there have in
    common, under the pattern that they are copies of.
    """

    layer: int
    num_layers: int
    hidden_size: int
    num_heads: int
    calls: int = 1
    shared: dict[Pattern, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class TextInput:
    """What the patterns of all layers may look at in one forward pass of the encoder.

    ``embeddings_BND`` are the encoder's input embeddings of the tokens, without gradient;
    ``heads_BN`` is the dependency tree, as ``Syntax`` describes it. Each is None where no pattern
    ``wants`` it.
    """

    embeddings_BND: Tensor | None = None
    heads_BN: Tensor | None = None
    made: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    def once(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` returns: made by the first layer that asks, the same for all others."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]


@dataclass(frozen=True, eq=False)
class DistanceGate:
    """A gate that is one parameter and opens the cells of one distance ``|i - j|``.

    Args:
        weights: the parameter; the gate is open, in evaluation, if its own entry is above 0.
        place: of that entry.
        distance: in tokens.
        heads: for which share of the heads of its layer it does so.
    """

    weights: Tensor
    place: tuple[int, ...]
    distance: int
    heads: float

    @property
    def weight(self) -> float:
        """How decided the gate is, above 0 for open."""
        return self.weights[self.place].item()

    @property
    def is_open(self) -> bool:
        """Whether it is, in evaluation."""
        return self.weight > 0

    @torch.no_grad()
    def turn(self) -> None:
        """Opens it if it is closed and closes it if it is open, as decided as it was before."""
        self.weights[self.place] = -self.weight or torch.finfo(self.weights.dtype).tiny


@dataclass(frozen=True)
class LayerInput:
    """What a pattern may look at in one forward pass of its layer.

    ``hidden_BND`` are the states that enter the self-attention; a pattern without gates never
    reads them, so they may be None for it. ``keep_BN`` is true for real tokens. ``text`` is the
    same for all layers.
    """

    keep_BN: Tensor
    hidden_BND: Tensor | None = None
    text: TextInput = field(default_factory=TextInput)


class Pattern(nn.Module):
    """A rule, hidden states of a layer -> mask. ``a | b`` is the union of two (Eq. 8).

    A pattern as a user writes it, ``Axis() | Local(2)``, is a template without parameters;
    ``bind`` makes one layer's copy of it with its gates.
    """

    noise_scale: float = 1.0  # of the noise with which gates are drawn in training

    def __init__(self) -> None:  # nn.Module's own takes anything, which would hide mistakes
        super().__init__()

    def bind(self, site: LayerSite) -> Pattern:
        """A copy of this pattern for one self-attention, with the parameters it needs there."""
        return copy.deepcopy(self)

    def closed(self) -> Pattern:
        """What is left of this pattern when all its gates are closed: the sparsest it can get."""
        return self

    @property
    def wants(self) -> frozenset[str]:
        """What it reads besides hidden states: ``embeddings``, ``heads`` or ``draws``."""
        return frozenset()

    def of_lengths(self) -> Pattern:
        """A pattern that opens as many cells as this one and needs to know but the texts' lengths.

        Raises:
            ValueError: if the number of open cells depends on the words.
        """
        if self.wants:
            raise ValueError(
                f"how many cells {self} opens depends on the words, so its sparsity does not "
                "follow from lengths alone; that of Syntax or Lexical at a density, alone, does"
            )
        return self

    def begin_pass(self, text: TextInput) -> None:
        """Draws what all layers share in a forward pass, into ``text.made``; for ``draws``."""

    def draw_ahead(self, longest: int) -> None:
        """Draws once what is drawn for each length, so that the forward pass can be traced.

        Args:
            longest: in tokens, of the texts to come.

        Raises:
            ValueError: if what is drawn is another for each length.
        """
        for part in self.modules():
            if isinstance(part, Pattern) and part is not self:
                part.draw_ahead(longest)

    def lower(self, by: float) -> None:
        """Lowers the logits of all own gates within their bounds, if they have a common level."""

    def distance_gates(self) -> list[DistanceGate]:
        """Those of the own gates that are single parameters and open a distance each."""
        return []

    def synchronise(self) -> None:
        """Makes what was recorded of the texts in training the same in every process."""

    def fingerprint(self) -> Any:
        """What was read from elsewhere, a file say, in plain JSON; None for nothing.

        In a run's identity it stands for the place that it was read from.
        """
        return None

    def forward(self, inputs: LayerInput) -> SparseMask:
        """The mask for a batch. No row of a real token may be empty."""
        raise NotImplementedError

    @property
    def learnable(self) -> bool:
        """Whether the pattern has gates, so that its sparsity is learned."""
        return self.closed() is not self

    def spec(self) -> dict[str, Any]:
        """This pattern in plain JSON: its class and its arguments; ``pattern_from_spec`` is back.

        Every argument of a pattern's constructor is kept in an attribute of the same name. A class
        from outside ``aaa.patterns`` is named with its module and without arguments: it cannot be
        rebuilt by name.
        """
        kind = type(self)
        if not kind.__module__.startswith(HOME):
            return {"pattern": f"{kind.__module__}.{kind.__qualname__}"}
        arguments = inspect.signature(kind).parameters
        return {"pattern": kind.__name__} | {
            name: _plain(getattr(self, name)) for name in arguments
        }

    def __or__(self, other: Pattern) -> Union:
        if not isinstance(other, Pattern):
            return NotImplemented
        return Union(self, other)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def check_patterns(owner: str, *parts: object) -> None:
    """Raises a ValueError for a part of a pattern that is none."""
    for part in parts:
        if not isinstance(part, Pattern):
            raise ValueError(f"{owner} takes patterns, not {part!r}")


class Union(Pattern):
    """All cells that at least one of the given patterns opens (the OR of Eq. 8)."""

    def __init__(self, *patterns: Pattern) -> None:
        super().__init__()
        if not patterns:
            raise ValueError(
                "Union needs at least one pattern, for example Union(Local(2), Global(1))"
            )
        check_patterns("Union", *patterns)
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

    @property
    def wants(self) -> frozenset[str]:
        return frozenset().union(*(pattern.wants for pattern in self))

    def fingerprint(self) -> Any:
        parts = [pattern.fingerprint() for pattern in self]
        return parts if any(part is not None for part in parts) else None

    def forward(self, inputs: LayerInput) -> SparseMask:
        first, *others = self
        mask = first(inputs)
        for pattern in others:
            mask = mask | pattern(inputs)
        return mask

    def __str__(self) -> str:
        return " | ".join(str(pattern) for pattern in self)


def union(source: str | None = None, **parts: Pattern) -> Pattern:
    """The union of named patterns, for configs: ``pattern.local.size=1`` then reaches one part.

    ``source`` is for a part of the config to refer to, so that ``pattern.source=`` reaches it.
    """
    return Union(*parts.values())


def _plain(value: Any) -> Any:
    if isinstance(value, Pattern):
        return value.spec()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, nn.ModuleList | Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    assert value is None or isinstance(value, str | int | float), f"not plain: {value!r}"
    return value


def _flatten(patterns: tuple[Pattern, ...]) -> Iterator[Pattern]:
    for pattern in patterns:
        if isinstance(pattern, Union):
            yield from pattern
        else:
            yield pattern
