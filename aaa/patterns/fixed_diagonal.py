"""Diagonals copied from a trained model, frozen (the first row of Table 3)."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aaa.masks import SparseMask
from aaa.numbers import is_number
from aaa.patterns.base import LayerInput, LayerSite, Pattern

log = logging.getLogger(__name__)

LOGITS, SEEN = "distance_weights_HK", "seen_tokens"  # what Diagonal calls them in a state
# Where the weights lie in a run's directory and in an exported folder.
WEIGHTS = ("model.safetensors", "model/model.safetensors")

Distances = Sequence[Sequence[Sequence[int]] | None]


class FixedDiagonal(Pattern):
    """Opens the distances ``|i - j|`` that the diagonals of a trained model have open.

    They are read once from ``source`` and are constants from then on. A distance is open where
    its logit is above 0 and a text of the source's training was long enough to have it. The main
    diagonal is always open. One set for the whole model (scope ``task``) serves every layer, else
    each layer takes its own, and one set for all heads serves any number of heads.

    Args:
        source: the directory of a finished run with a ``Diagonal``, the folder of a saved model,
            or the safetensors file itself.
        distances: in place of ``source``, the open distances themselves, as
            ``distances[layer][head]``; None for a layer without.

    Raises:
        ValueError: if not just one of the two is given, the source is missing, cannot be read
            or has no diagonals; when it is bound, if layers or heads do not fit the encoder.
    """

    diagonals_HK: Tensor | None  # there once bound to a layer

    def __init__(self, source: str | None = None, distances: Distances | None = None) -> None:
        super().__init__()
        if (source is None) == (distances is None):
            raise ValueError(
                "FixedDiagonal takes a source, the directory of a run or of a saved model with "
                "learned diagonals, or the distances themselves; one of the two"
            )
        if source is not None:
            self.distances, self.origin = _read(Path(source).expanduser())
        else:
            self.distances, self.origin = _checked(distances), ""
        self.source = None  # from here on the pattern is its distances
        self.register_buffer("diagonals_HK", None, persistent=False)

    def bind(self, site: LayerSite) -> Pattern:
        bound = copy.deepcopy(self)
        own = self._of_layer(site)
        if len(own) > 1 and site.num_heads not in (0, len(own)):
            raise ValueError(
                f"the source has diagonals for {len(own)} heads, this encoder has "
                f"{site.num_heads}: choose a source of the same shape"
            )
        bound.diagonals_HK = torch.zeros(
            len(own), 1 + max(max(opened, default=0) for opened in own)
        )
        for head, opened in enumerate(own):
            bound.diagonals_HK[head, [0, *opened]] = 1
        if self not in site.shared and site.num_heads:  # once an encoder
            log.info("%s%s", self, self.origin)
        site.shared[self] = bound
        return bound

    def forward(self, inputs: LayerInput) -> SparseMask:
        assert self.diagonals_HK is not None, "bind comes before forward"
        return SparseMask(inputs.keep_BN, diagonals_BHK=self.diagonals_HK.unsqueeze(0))

    def fingerprint(self) -> Any:
        return self.distances

    def _of_layer(self, site: LayerSite) -> Sequence[Sequence[int]]:
        if len(self.distances) == 1 and self.distances[0] is not None:
            return self.distances[0]
        own = self.distances[site.layer] if site.layer < len(self.distances) else None
        if own is None or len(self.distances) > site.num_layers:
            has = [str(layer) for layer, sets in enumerate(self.distances) if sets is not None]
            raise ValueError(
                f"the source has diagonals in layers {','.join(has)}, this encoder has "
                f"{site.num_layers} layers and wants them in layer {site.layer}: choose a source "
                "of the same shape, or give the layers that it has"
            )
        return own

    def extra_repr(self) -> str:
        sets = [opened for own in self.distances if own is not None for opened in own]
        return f"{sum(map(len, sets))} open distances in {len(sets)} sets"


def _checked(distances: Any) -> Distances:
    whole = isinstance(distances, Sequence) and all(
        own is None
        or (own and all(is_number(k, int) and k >= 1 for opened in own for k in opened))
        for own in distances
    )
    if not whole or all(own is None for own in distances):
        raise ValueError(
            "FixedDiagonal distances are lists of whole numbers from 1, distances[layer][head]"
        )
    return distances


def _read(source: Path) -> tuple[Distances, str]:
    """The open distances of a saved model, and a word on where they come from."""
    file = _weights_file(source)
    try:
        with safe_open(file, framework="pt") as weights:
            names = list(weights.keys())
            logits = {n: weights.get_tensor(n) for n in names if n.endswith("." + LOGITS)}
            seen = [int(weights.get_tensor(n)) for n in names if n.endswith("." + SEEN)]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not logits:
        raise ValueError(
            f"{file} has no diagonals: its model was trained under another pattern; choose a run "
            "of a diagonal pattern, such as pattern=diagonal_layer_global1"
        )
    num_distances = max(logits_HK.shape[-1] for logits_HK in logits.values())
    # Each diagonal of a model has seen the same texts; none has seen any before training.
    reach = max([*seen, 0]) - 1
    reach = num_distances if reach < 0 else min(reach, num_distances)
    sets = {name: _open(logits_HK, reach) for name, logits_HK in logits.items()}
    origin = (
        f" from {source}; {num_distances - reach} of its {num_distances} distances were not seen "
        "in its training and stay closed"
    )
    return list(sets.values()) if len(sets) == 1 else _by_layer(sets, file), origin


def _weights_file(source: Path) -> Path:
    if source.is_file():
        return source
    for name in WEIGHTS:
        if (source / name).is_file():
            return source / name
    raise ValueError(
        f"there are no weights in {str(source)!r}: a source of diagonals is the directory of a "
        f"finished run or of a saved model, with {WEIGHTS[0]}"
    )


def _open(logits_HK: Tensor, reach: int) -> list[list[int]]:
    """For each head the open distances; entry k of the logits is of distance k + 1."""
    return [(row.nonzero().flatten() + 1).tolist() for row in logits_HK[:, :reach] > 0]


def _by_layer(sets: dict[str, list[list[int]]], file: Path) -> Distances:
    """Sets in the order of their layers, whose number is the first one in a weight's name."""
    numbered: dict[int, list[list[int]]] = {}
    for name, heads in sets.items():
        number = re.search(r"\.(\d+)\.", name.partition(".sparse.")[0] + ".")
        if number is None or int(number[1]) in numbered:
            raise ValueError(f"{file} does not have one set of diagonals a layer: see {name}")
        numbered[int(number[1])] = heads
    return [numbered.get(layer) for layer in range(max(numbered) + 1)]
