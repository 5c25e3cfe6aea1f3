"""A pattern in some layers only."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any, SupportsIndex

from aaa.patterns.base import LayerSite, Pattern, check_patterns
from aaa.patterns.full import Full


class InLayers(Pattern):
    """One pattern in a range of layers, full attention or another pattern elsewhere.

    For the question in which layers attention can be sparse (Breaking BERT finds: in the later
    ones). rho counts all layers.

    Args:
        inside: the pattern of the given layers.
        layers: their numbers, from 0: ``"6-11"``, ``"6-"`` (to the last), ``"0,2,4"``, ``3`` or
            ``[0, 2, 4]``.
        elsewhere: the pattern of all other layers; by default ``Full()``.

    Raises:
        ValueError: if ``inside`` or ``elsewhere`` is no pattern, or ``layers`` cannot be read or
            end before they begin; when it is bound, if the encoder has no such layer, or layers
            inside and elsewhere share one self-attention (ALBERT).
    """

    def __init__(
        self,
        inside: Pattern,
        layers: str | int | Sequence[int],
        elsewhere: Pattern | None = None,
    ) -> None:
        super().__init__()
        self.inside, self.layers = inside, _plain(layers)
        self.elsewhere = Full() if elsewhere is None else elsewhere
        check_patterns("InLayers", inside, self.elsewhere)
        self.ranges = _ranges(layers)

    def bind(self, site: LayerSite) -> Pattern:
        # Checked for every layer, so that the first one already tells.
        inside = self._numbers(site.num_layers)
        own = range(site.layer, site.layer + site.calls)
        if len({layer in inside for layer in own}) > 1:
            raise ValueError(
                f"layers {own[0]} to {own[-1]} of this encoder share one self-attention, so a "
                f"pattern is in all of them or in none, not in layers {self._written}"
            )
        return (self.inside if site.layer in inside else self.elsewhere).bind(site)

    def closed(self) -> Pattern:
        if not self.learnable:
            return self
        return InLayers(self.inside.closed(), self.layers, self.elsewhere.closed())

    @property
    def learnable(self) -> bool:
        return self.inside.learnable or self.elsewhere.learnable

    @property
    def wants(self) -> frozenset[str]:
        return self.inside.wants | self.elsewhere.wants

    def fingerprint(self) -> Any:
        parts = [self.inside.fingerprint(), self.elsewhere.fingerprint()]
        return parts if any(part is not None for part in parts) else None

    def _numbers(self, num_layers: int) -> set[int]:
        numbers: set[int] = set()
        for first, last in self.ranges:
            last = num_layers - 1 if last is None else last
            if not first <= last < num_layers:
                raise ValueError(
                    f"layers {self._written}: this encoder has {num_layers} layers, counted from "
                    f"0 to {num_layers - 1}"
                )
            numbers.update(range(first, last + 1))
        return numbers

    @property
    def _written(self) -> str:
        layers = self.layers
        return str(layers) if isinstance(layers, str | int) else ",".join(map(str, layers))

    def __str__(self) -> str:
        return f"({self.inside}) in layers {self._written}, {self.elsewhere} elsewhere"


def _plain(layers: str | int | Sequence[int]) -> str | int | list[Any]:
    """Without the numbers of other libraries, which no file could keep."""
    if isinstance(layers, SupportsIndex):
        return operator.index(layers)
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        return layers
    return [operator.index(one) if isinstance(one, SupportsIndex) else one for one in layers]


def _ranges(layers: str | int | Sequence[int]) -> list[tuple[int, int | None]]:
    """First and last layer of each part; None for the encoder's last."""
    written = isinstance(layers, str) or not isinstance(layers, Sequence)
    parts: Sequence[Any] = str(layers).split(",") if written else layers  # type: ignore[assignment]
    ranges: list[tuple[int, int | None]] = []
    for part in parts:
        found = re.fullmatch(r"\s*(\d+)\s*(-\s*(\d+)?)?\s*", str(part))
        if found is None:
            break
        first, dash, last = found.groups()
        if last and int(last) < int(first):
            raise ValueError(f"layers {part}: a range goes from lower to higher, {last}-{first}")
        ranges.append((int(first), int(last) if last else None if dash else int(first)))
    else:
        if ranges:
            return ranges
    raise ValueError(
        f"layers are numbers from 0, such as 6-11, 6- (to the last), 3 or [0,2,4], not {layers!r}"
    )
