"""Where parses come from, and the words column that is made of them once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset

from aaa.data.parses import ConlluParses, add_words, open_parses
from tests.conllu_files import sentence

DOGS = sentence([("Dogs", 2), ("bark", 0), (".", 2)])
CATS = sentence([("Cats", 2), ("purr", 0), (".", 2)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.conllu"
    path.write_text(DOGS + CATS, encoding="utf-8")
    return path


def test_a_sentence_is_found_whatever_its_white_space(file: Path) -> None:
    parses = open_parses(f"conllu:{file}")
    first, second = parses.parse(["Dogs bark.", "  Cats  purr . "])
    assert first == [(0, 4, 1), (5, 9, 1), (9, 10, 1)]
    assert second == [(2, 6, 1), (8, 12, 1), (13, 14, 1)]


def test_a_text_may_be_several_sentences(file: Path) -> None:
    (words,) = open_parses(f"conllu:{file}").parse(["Cats purr. Dogs bark."])
    assert words == [
        (0, 4, 1), (5, 9, 1), (9, 10, 1), (11, 15, 4), (16, 20, 4), (20, 21, 4)
    ]  # fmt: skip


def test_the_longest_sentence_that_leaves_a_parsed_rest(tmp_path: Path) -> None:
    file = tmp_path / "a.conllu"
    pieces = [[("a", 0)], [("a", 0), ("b", 1)], [("b", 0), ("c", 1)], [("c", 2), ("d", 0)]]
    file.write_text("".join(sentence(piece) for piece in pieces), encoding="utf-8")
    abc, abcd = ConlluParses(str(file)).parse(["abc", "ab c d"])
    assert abc == [(0, 1, 0), (1, 2, 1), (2, 3, 1)]  # "ab" first would leave "c" alone
    assert abcd == [(0, 1, 0), (1, 2, 0), (3, 4, 3), (5, 6, 3)]


def test_the_first_of_two_parses_counts(tmp_path: Path) -> None:
    trees = {"b": [("x", 2), ("y", 0)], "a": [("x", 0), ("y", 1)]}
    for name, tree in trees.items():
        (tmp_path / f"{name}.conllu").write_text(sentence(tree), encoding="utf-8")
    (words,) = open_parses(f"conllu:{tmp_path}").parse(["x y"])
    assert words == [(0, 1, 0), (2, 3, 0)]  # of a.conllu


def test_an_empty_text_has_no_words(file: Path) -> None:
    assert open_parses(f"conllu:{file}").parse([" "]) == [[]]


def test_the_first_text_without_a_parse_is_named(file: Path) -> None:
    parses = open_parses(f"conllu:{file}")
    with pytest.raises(ValueError, match=r"no parse of the text 'Birds sing.'"):
        parses.parse(["Dogs bark.", "Birds sing.", "Fish swim."])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("stanza:en", "data.parses is spacy:<model> or conllu:<file or folder>, not 'stanza:en'"),
        ("conllu", "data.parses is"),
        ("conllu:", "data.parses is"),
        ("conllu:./nowhere", "that is no file"),
    ],
)
def test_bad_sources(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_parses(source)


def test_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder without"):
        open_parses(f"conllu:{tmp_path}")


def test_the_fingerprint_is_of_the_content(file: Path, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy.conllu", tmp_path / "other.conllu"
    copy.write_text(DOGS + CATS, encoding="utf-8")
    other.write_text(DOGS, encoding="utf-8")
    prints = [open_parses(f"conllu:{path}").fingerprint() for path in (file, copy, other)]
    assert prints[0] == prints[1] != prints[2]


def make_data() -> Dataset:
    texts = {"one": ["Dogs bark.", "Cats purr."], "two": ["Cats purr.", "Dogs bark ."]}
    return Dataset.from_dict({**texts, "label": [0, 1]}, split="train")


def test_words_are_parsed_once(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    columns = ("one", "two")
    first = add_words(make_data(), columns, open_parses(f"conllu:{file}"), "data", cache)
    assert first["two_words"][:] == [
        [[0, 4, 1], [5, 9, 1], [9, 10, 1]], [[0, 4, 1], [5, 9, 1], [10, 11, 1]]
    ]  # fmt: skip
    assert first["one"][:] == make_data()["one"][:]

    def untouchable(*_: Any) -> Any:
        raise AssertionError("parsed again")

    monkeypatch.setattr(ConlluParses, "parse", untouchable)
    again = add_words(make_data(), columns, open_parses(f"conllu:{file}"), "data", cache)
    assert again.to_dict() == first.to_dict()
    file.write_text(CATS + DOGS, encoding="utf-8")
    with pytest.raises(AssertionError, match="parsed again"):
        add_words(make_data(), columns, open_parses(f"conllu:{file}"), "data", cache)


# spaCy is an extra; a stand-in has what is used of it.


class Pipeline:
    meta = {"lang": "en", "name": "tiny", "version": "1.2.3"}  # noqa: RUF012
    pipe_names = ("tagger", "parser")

    def pipe(self, texts: list[str]) -> list[list[Any]]:
        return [self.document(text) for text in texts]

    def document(self, text: str) -> list[Any]:
        document: list[Any] = []
        for form in text.split():
            head = SimpleNamespace(i=max(0, len(document) - 1))
            document.append(_Token(text.index(form), form, head))
        return document


class _Token:
    def __init__(self, idx: int, form: str, head: Any) -> None:
        self.idx, self.form, self.head = idx, form, head

    def __len__(self) -> int:
        return len(self.form)


@pytest.fixture
def spacy(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = ModuleType("spacy")
    module.__version__ = "3.8"

    def load(name: str, exclude: list[str]) -> Pipeline:
        if name != "en_tiny":
            raise OSError("no such model")
        return Pipeline()

    module.load = load
    monkeypatch.setitem(sys.modules, "spacy", module)
    return module


def test_spacy(spacy: Any) -> None:
    parses = open_parses("spacy:en_tiny")
    assert parses.parse(["it rains now"]) == [[(0, 2, 0), (3, 8, 0), (9, 12, 1)]]
    assert parses.fingerprint() == "spacy-3.8:en_tiny-1.2.3"


def test_spacy_without_the_model(spacy: Any) -> None:
    with pytest.raises(ValueError, match=r"spacy download en_other, or .*=conllu:FILE"):
        open_parses("spacy:en_other")


def test_spacy_without_a_parser(spacy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "pipe_names", ("tagger",))
    with pytest.raises(ValueError, match="has no parser"):
        open_parses("spacy:en_tiny")


def test_without_spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ValueError, match=r"not installed; pip install spacy, or .*conllu:FILE"):
        open_parses("spacy:en_core_web_sm")
