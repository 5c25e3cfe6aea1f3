"""Corpora for pre-training: Wikipedia, from the hub or a local folder, and what any corpus is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import datasets
from datasets import Dataset, IterableDataset

from aaa.data.source import cache_of_folder, open_source
from aaa.fingerprint import hash_files, hash_json
from aaa.places import local_folder

T = TypeVar("T")

TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class Corpus(ABC):
    """Documents to pre-train on, in a fixed order.

    Args:
        name: short name, for messages and results.
    """

    name: str

    @abstractmethod
    def load(self) -> Dataset:
        """All documents, a row each, with the column ``text``."""

    def stream(self) -> IterableDataset:
        """The same documents one after the other, without a copy of them on this disk."""
        return self.load().to_iterable_dataset()

    @abstractmethod
    def fingerprint(self) -> str:
        """Identify the documents: equal strings mean equal documents, wherever they are stored."""


@dataclass(frozen=True, kw_only=True)
class Wikipedia(Corpus):
    """Articles of Wikipedia as ``wikimedia/wikipedia`` has them: rows with ``text``, no markup.

    Titles are left out, as in the texts that BERT was trained on. (The paper took the dump of
    20200501, which the hub no longer offers ready-made; its successor has later ones.)

    Args:
        path: hub id, or a local folder of the same layout (parquet files and a README.md whose
            header lists the configurations).
        config: dump and language, such as ``20231101.en``.
        revision: commit, branch or tag on the hub; a local folder has none and ignores it.
        split: the split that holds the articles.

    Raises:
        ValueError: (from its methods) if the data cannot be found or has no column ``text``.
    """

    name: str = "wikipedia"
    path: str = "wikimedia/wikipedia"
    config: str = "20231101.en"
    revision: str | None = None
    split: str = "train"

    def load(self) -> Dataset:
        options = {} if self._on_hub() else {"cache_dir": cache_of_folder(self.fingerprint())}
        return self._text_of(self._open(datasets.load_dataset, split=self.split, **options))

    def stream(self) -> IterableDataset:
        return self._text_of(self._open(datasets.load_dataset, split=self.split, streaming=True))

    def fingerprint(self) -> str:
        """The files' SHA-256 for a local folder, ``path@revision`` with config for the hub.

        On the hub, ``main`` may move: pin a revision to be sure.
        """
        if self._on_hub():
            return f"{self.path}@{self.revision or 'main'}/{self.config}/{self.split}"
        files = self._open(datasets.load_dataset_builder).config.data_files
        if self.split not in files:
            raise ValueError(
                f"corpus {self.name}: {self.path} has no split {self.split!r}; it has: "
                f"{', '.join(map(str, files))}"
            )
        return hash_json([hash_files(map(Path, files[self.split])), self.split])

    def _on_hub(self) -> bool:
        return local_folder(self.path, "data.path") is None

    def _open(self, opener: Callable[..., T], **options: object) -> T:
        who = f"corpus {self.name}"
        return open_source(opener, who, self.path, self.config, self.revision, **options)

    def _text_of(self, documents: T) -> T:
        columns = getattr(documents, "column_names", None) or [TEXT]
        if TEXT not in columns:
            raise ValueError(
                f"corpus {self.name}: {self.path} has no column {TEXT!r}; it has: {columns}"
            )
        features = getattr(documents, "features", None)  # a stream may not know them
        kind = getattr(features[TEXT], "dtype", None) if features else "string"
        if kind not in ("string", "large_string", "null"):
            raise ValueError(
                f"corpus {self.name}: {self.path} has no texts in its column {TEXT!r}: {kind}"
            )
        return documents.select_columns([TEXT])  # type: ignore[attr-defined]
