"""Dependency parses of a task's texts: by spaCy, or read from CoNLL-U files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from aaa.data.cached import Batch, cached_map
from aaa.data.conllu import Sentence, Word, read_sentences
from aaa.fingerprint import hash_files, hash_json

# To be raised when the code below comes to write other words for the same texts.
FORMAT = 1


class Parses(ABC):
    """Where the parses of texts come from."""

    @abstractmethod
    def parse(self, texts: Sequence[str]) -> list[list[Word]]:
        """The words of each text, in their order.

        Raises:
            ValueError: naming the first text of which there is no parse.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Equal strings mean equal parses of equal texts."""


class ConlluParses(Parses):
    """Parses from a CoNLL-U file, or from all ``*.conllu`` files of a folder.

    A text is found by what it spells without its white space, so the files need neither the
    order of the data set nor ``# text`` lines. It may be one of their sentences or several in a
    row; of several parses of one sentence the first counts.

    Raises:
        ValueError: if there is no such file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.files = sorted(self.path.glob("*.conllu")) if self.path.is_dir() else [self.path]
        if not self.files or not self.path.exists():
            what = "a folder without *.conllu files" if self.path.is_dir() else "no file"
            raise ValueError(f"data.parses=conllu:{path}: that is {what}")

    def parse(self, texts: Sequence[str]) -> list[list[Word]]:
        return [self._words(text) for text in texts]

    def fingerprint(self) -> str:
        return f"conllu:{hash_files(self.files)}"

    @cached_property
    def _sentences(self) -> dict[str, Sentence]:
        found: dict[str, Sentence] = {}
        for file in self.files:
            for sentence in read_sentences(file):
                found.setdefault(sentence.spelling, sentence)
        return found

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(spelling) for spelling in self._sentences}, reverse=True)

    def _words(self, text: str) -> list[Word]:
        places = [place for place, character in enumerate(text) if not character.isspace()]
        sentences = self._cover("".join(text.split()))
        if sentences is None:
            raise ValueError(
                f"data.parses=conllu:{self.path} has no parse of the text {text!r}: it must be a "
                "sentence of the file, or several in a row"
            )
        words: list[Word] = []
        offset = 0
        for sentence in sentences:
            first = len(words)
            for start, end, head in sentence.words:
                characters = places[offset + start], places[offset + end - 1] + 1
                words.append((*characters, first + head))
            offset += len(sentence.spelling)
        return words

    def _cover(self, spelling: str) -> list[Sentence] | None:
        """The sentences that spell a text together, the longest first; None for none."""
        if not spelling:
            return []
        for length in self._lengths:
            sentence = self._sentences.get(spelling[:length])
            if sentence is not None and len(sentence.spelling) == length:
                others = self._cover(spelling[length:])
                if others is not None:
                    return [sentence, *others]
        return None


class SpacyParses(Parses):
    """Parses by a pipeline of spaCy that is installed under the given name, or lies in a folder.

    Raises:
        ValueError: if spaCy or the pipeline is not there, or it does not parse.
    """

    def __init__(self, model: str) -> None:
        elsewhere = "or read parses from a file: data.parses=conllu:FILE"
        try:
            import spacy
        except ImportError as error:
            raise ValueError(
                f"data.parses=spacy:{model}: spaCy is not installed; "
                f"pip install spacy, {elsewhere}"
            ) from error
        try:
            self.pipeline = spacy.load(model, exclude=["ner", "lemmatizer"])
        except OSError as error:
            raise ValueError(
                f"data.parses=spacy:{model}: spaCy has no such model; "
                f"python -m spacy download {model}, {elsewhere}"
            ) from error
        if "parser" not in self.pipeline.pipe_names:
            raise ValueError(
                f"data.parses=spacy:{model} has no parser, but {self.pipeline.pipe_names}"
            )
        self.version = spacy.__version__

    def parse(self, texts: Sequence[str]) -> list[list[Word]]:
        return [
            [(token.idx, token.idx + len(token), token.head.i) for token in document]
            for document in self.pipeline.pipe(texts)
        ]

    def fingerprint(self) -> str:
        meta = self.pipeline.meta
        return f"spacy-{self.version}:{meta['lang']}_{meta['name']}-{meta['version']}"


def open_parses(source: str) -> Parses:
    """The parses that ``data.parses`` names: ``spacy:<model>`` or ``conllu:<file or folder>``.

    Raises:
        ValueError: if it names neither, or what it names is not there.
    """
    kind, _, place = str(source).partition(":")
    kinds: dict[str, type[Any]] = {"spacy": SpacyParses, "conllu": ConlluParses}
    if kind not in kinds or not place:
        raise ValueError(
            f"data.parses is spacy:<model> or conllu:<file or folder>, not {source!r}"
        )
    return kinds[kind](place)


def words_column(column: str) -> str:
    """Where the words of a text column are kept."""
    return f"{column}_words"


def add_words(
    dataset: Dataset,
    columns: Sequence[str],
    parses: Parses,
    fingerprint: str,
    cache_dir: Path | None = None,
) -> Dataset:
    """Parse the texts of a dataset, once: the result is cached as that of ``encode`` is.

    Args:
        dataset: Rows with the text ``columns``; its ``split`` must be set.
        columns: The text columns.
        parses: Where the parses come from.
        fingerprint: Identifies the content that ``dataset`` was read from.
        cache_dir: Folder of the cache; None keeps the result in memory.

    Returns:
        The rows with a further column for each text column, ``words_column(column)``: for each
        word its first character, the one behind its last, and the number of its head's word.

    Raises:
        ValueError: if a text has no parse.
    """

    def parse(batch: Batch) -> Batch:
        return {words_column(column): parses.parse(batch[column]) for column in columns}

    key = hash_json(
        {
            "format": FORMAT,
            "parses": parses.fingerprint(),
            "data": fingerprint,
            "columns": list(columns),
            "split": str(dataset.split),
            "rows": len(dataset),
        }
    )
    words = {words_column(column): List(List(Value("int32"))) for column in columns}
    features = Features({**dataset.features, **words})
    return cached_map(dataset, parse, features, key, cache_dir, "parsing")
