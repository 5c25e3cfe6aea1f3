from __future__ import annotations

from pathlib import Path

import pytest

from aaa.data.conllu import Sentence, read_sentences
from tests.conllu_files import line, sentence


def read(tmp_path: Path, text: str) -> list[Sentence]:
    file = tmp_path / "some.conllu"
    file.write_text(text, encoding="utf-8")
    return list(read_sentences(file))


def test_two_sentences_with_comments(tmp_path: Path) -> None:
    text = "# sent_id = 1\n# text = Dogs bark.\n" + sentence([("Dogs", 2), ("bark", 0), (".", 2)])
    first, second = read(tmp_path, text + sentence([("Ça", 2), ("va", 0)]))
    assert first == Sentence("Dogsbark.", [(0, 4, 1), (4, 8, 1), (8, 9, 1)])
    assert second == Sentence("Çava", [(0, 2, 1), (2, 4, 1)])


def test_a_file_may_end_without_an_empty_line(tmp_path: Path) -> None:
    (only,) = read(tmp_path, sentence([("Go", 0)]).rstrip("\n"))
    assert only == Sentence("Go", [(0, 2, 0)])


def test_a_multiword_token_is_one_word_headed_as_its_highest(tmp_path: Path) -> None:
    lines = [
        line("1-2", "vámonos"), line(1, "vamos", 0), line(2, "nos", 1),
        line("3-4", "al"), line(3, "a", 5), line(4, "el", 5), line(5, "mar", 1),
    ]  # fmt: skip
    (only,) = read(tmp_path, "\n".join(lines) + "\n\n")
    assert only == Sentence("vámonosalmar", [(0, 7, 0), (7, 9, 2), (9, 12, 0)])


def test_what_a_multiword_token_is_made_of_cannot_close_a_circle(tmp_path: Path) -> None:
    """The word between heads one half of the token and hangs from the other."""
    lines = [line("1-2", "ab"), line(1, "a", 3), line(2, "b", 0), line(3, "c", 2)]
    (only,) = read(tmp_path, "\n".join(lines) + "\n\n")
    assert only.words == [(0, 2, 0), (2, 3, 0)]


def test_empty_nodes_are_left_out(tmp_path: Path) -> None:
    lines = [line(1, "Sue", 2), line(2, "likes", 0), line("2.1", "likes"), line(3, "tea", 2)]
    (only,) = read(tmp_path, "\n".join(lines) + "\n\n")
    assert only == Sentence("Suelikestea", [(0, 3, 1), (3, 8, 1), (8, 11, 1)])


def test_white_space_within_a_form(tmp_path: Path) -> None:
    (only,) = read(tmp_path, sentence([("10 000", 2), ("people", 0)]))
    assert only == Sentence("10000people", [(0, 5, 1), (5, 11, 1)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (sentence([("a", 2), ("b", 1)]), "sentence 1: word 1 is above itself"),
        (sentence([("a", 1)]), "sentence 1: word 1 is above itself"),
        (sentence([("ok", 0)]) + sentence([("a", 3), ("b", 0)]), "sentence 2: word 1 has no head"),
        (line(1, "a", "_") + "\n\n", "word 1 has no head"),
        (line(1, "a", 0) + "\n" + line(3, "b", 1) + "\n\n", "not numbered 1, 2, 3"),
        (line(1, "a", 0) + "\n" + line(1, "b", 1) + "\n\n", "not numbered 1, 2, 3"),
        ("no parse\n\n", "after sentence 0: no CoNLL-U"),
        (line("x", "a", 0) + "\n\n", "no CoNLL-U"),
        (line(1, "a", "up") + "\n\n", "no CoNLL-U"),
    ],
)
def test_what_is_no_tree_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"some\.conllu.*{message}"):
        read(tmp_path, text)


def test_another_encoding_is_no_conllu(tmp_path: Path) -> None:
    file = tmp_path / "latin.conllu"
    file.write_bytes(sentence([("ça", 0)]).encode("latin-1"))
    with pytest.raises(ValueError, match="no CoNLL-U"):
        list(read_sentences(file))
