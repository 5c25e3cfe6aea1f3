"""IMDb's film reviews (Maas et al., 2011): long texts, and the data of Long Range Arena's Text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset

from aaa.data.glue import GlueTask
from aaa.fingerprint import hash_json
from aaa.names import known_name


@dataclass(frozen=True, kw_only=True)
class ImdbTask(GlueTask):
    """Is a review positive? 25,000 reviews to train on and 25,000 to test on, half of each.

    The data set has no split for development. One can be drawn from the training reviews
    (``held_out``); Long Range Arena's code takes the test split (``splits.validation: test``).

    Args:
        path: Hub id, or a local folder of the same layout.
        splits: As in :class:`GlueTask`; without ``validation`` where reviews are held out. Here
            and in ``limits`` a key with None counts as not given.
        held_out: So many training reviews, drawn at random, are ``validation`` and are not
            trained on; 0 for none.
        limits: At most so many reviews of a split (a key of ``splits``, or ``validation``),
            drawn at random; splits that are not named are whole.
        seed: Of both draws.

    Raises:
        ValueError: If a field makes no sense, as in :class:`GlueTask`; from ``load`` also if more
            reviews are to be held out than there are.
    """

    path: str = "stanfordnlp/imdb"
    configuration: str = "plain_text"
    held_out: int = 0
    limits: Mapping[str, int] = field(default_factory=dict, hash=False)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        for field_name in ("splits", "limits"):
            given = getattr(self, field_name)
            chosen = {key: value for key, value in given.items() if value is not None}
            object.__setattr__(self, field_name, chosen)
        if self.held_out < 0:
            raise ValueError(f"task.held_out must be 0 or more, not {self.held_out}")
        if self.held_out and "validation" in self.splits:
            raise ValueError(
                f"task.held_out={self.held_out} makes the split validation, so task.splits must "
                f"name none for it, not {self.splits['validation']!r}"
            )
        super().__post_init__()
        known = [*self.splits, *self._drawn]
        for split, limit in self.limits.items():
            known_name(split, known, "task.limits: split")
            if limit < 1:
                raise ValueError(f"task.limits.{split} must be 1 or more, not {limit}")

    @property
    def _drawn(self) -> tuple[str, ...]:
        return ("validation",) if self.held_out else ()

    def load(self) -> dict[str, Dataset]:
        """Read and check the data, hold out and cut down what is asked for."""
        data = super().load()
        if self.held_out:
            if self.held_out >= len(data["train"]):
                raise ValueError(
                    f"task.held_out={self.held_out}, but there are {len(data['train'])} reviews "
                    "to train on"
                )
            order = np.random.default_rng(self.seed).permutation(len(data["train"]))
            held_out, rest = np.split(order, [self.held_out])
            drawn = {
                "train": _rows(data["train"], rest, "train"),
                "validation": _rows(data["train"], held_out, "validation"),
            }
            data = {**drawn, **{key: split for key, split in data.items() if key != "train"}}
        for split, limit in self.limits.items():
            if limit < len(data[split]):
                order = np.random.default_rng(self.seed).permutation(len(data[split]))
                data[split] = _rows(data[split], order[:limit], split)
        return data

    def fingerprint(self) -> str:
        """That of the data, and of what is drawn from it."""
        whole = super().fingerprint()
        if not self.held_out and not self.limits:
            return whole
        return hash_json([whole, self.held_out, self.limits, self.seed])


def _rows(dataset: Dataset, rows: np.ndarray, split: str) -> Dataset:
    """Some rows as a data set of their own, which knows the split that it is."""
    return Dataset(dataset.with_format("arrow")[rows], split=split)
