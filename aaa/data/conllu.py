"""CoNLL-U: what a sentence spells, where its words stand in it, and which word heads which."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conllu
from conllu.exceptions import ParseException

Word = tuple[int, int, int]  # first character, the one behind the last, number of the head's word


@dataclass(frozen=True)
class Sentence:
    """``words`` count characters in ``spelling``, the words' forms without any white space."""

    spelling: str
    words: list[Word]


def read_sentences(file: Path) -> Iterator[Sentence]:
    """The sentences of a file.

    Words are those of the text: a multiword token (``1-2 du``, of ``1 de`` and ``2 le``) is one
    word, headed as the highest in the tree of those that it is made of. A root heads itself.
    Empty nodes (``8.1``) belong to the enhanced graph, not to the tree, and are left out.

    Raises:
        ValueError: naming the file and the sentence that is no CoNLL-U or no tree.
    """
    number = 0
    try:
        with file.open(encoding="utf-8") as lines:
            for tokens in conllu.parse_incr(lines):
                number += 1
                yield _sentence(tokens)
    except (ParseException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file}, after sentence {number}: no CoNLL-U: {reason}") from error
    except ValueError as error:
        raise ValueError(f"{file}, sentence {number}: {error}") from error


def _sentence(tokens: Any) -> Sentence:
    own = [token for token in tokens if isinstance(token["id"], int)]
    if not own or [token["id"] for token in own] != list(range(1, len(own) + 1)):
        raise ValueError("its words are not numbered 1, 2, 3 and so on")
    heads = {token["id"]: token.get("head") for token in own}
    depths = {word: _depth(word, heads) for word in heads}
    forms: list[str] = []
    unit_of: dict[int, int] = {}  # number of each syntactic word -> number of its word in the text
    for token in tokens:
        numbers = _numbers(token["id"])
        if numbers and not unit_of.keys() & set(numbers):
            unit_of.update(dict.fromkeys(numbers, len(forms)))
            forms.append("".join(token["form"].split()))
    members: list[list[int]] = [[] for _ in forms]
    for word in heads:
        members[unit_of[word]].append(word)
    words: list[Word] = []
    end = 0
    for unit, form in enumerate(forms):
        start, end = end, end + len(form)
        head = heads[min(members[unit], key=lambda word: depths[word])]
        words.append((start, end, unit_of[head] if head else unit))
    return Sentence("".join(forms), words)


def _numbers(token_id: int | tuple[int, str, int]) -> list[int]:
    """The syntactic words that a line stands for; none for an empty node."""
    if isinstance(token_id, int):
        return [token_id]
    first, sign, last = token_id
    return list(range(first, last + 1)) if sign == "-" else []


def _depth(word: int, heads: dict[int, int | None]) -> int:
    """How many steps the word is from the artificial root, number 0."""
    depth, above = 0, word
    while above:
        head = heads.get(above)
        if head is None or (head and head not in heads):
            raise ValueError(f"word {above} has no head among its words")
        above, depth = head, depth + 1
        if depth > len(heads):
            raise ValueError(f"word {word} is above itself in its tree")
    return depth
