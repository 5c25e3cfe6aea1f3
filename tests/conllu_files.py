"""CoNLL-U written on the spot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def line(number: int | str, form: str, head: int | str = "_") -> str:
    return "\t".join([str(number), form, "_", "_", "_", "_", str(head), "dep", "_", "_"])


def sentence(words: Sequence[tuple[str, int]]) -> str:
    """Forms with the numbers, from 1, of their heads; 0 for the root."""
    lines = [line(number, form, head) for number, (form, head) in enumerate(words, start=1)]
    return "\n".join(lines) + "\n\n"


def write_trees(path: Path, texts: Iterable[str]) -> Path:
    """A parse of each text, though no real one: word n is headed by word n / 2, rounded down."""
    trees = [
        sentence([(word, number // 2) for number, word in enumerate(text.split(), start=1)])
        for text in dict.fromkeys(texts)
    ]
    path.write_text("".join(trees), encoding="utf-8")
    return path
