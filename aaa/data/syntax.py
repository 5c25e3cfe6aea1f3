"""Dependency trees over the tokens that an encoder sees, from the trees over a text's words."""

from __future__ import annotations

from collections.abc import Sequence

from aaa.data.conllu import Word

CONTINUES = -2  # a further piece of the word of the token before; see aaa.patterns.Syntax

Place = tuple[int, int]  # which text, and which of its words


def token_heads(
    offsets: Sequence[tuple[int, int]],
    texts: Sequence[int | None],
    words: Sequence[Sequence[Word]],
) -> list[int]:
    """For each token the position of the token that heads its word, as ``Syntax`` takes them.

    The first special token, [CLS], stands for the artificial root of dependency grammar: the roots
    of all sentences hang from it, and so do all further special tokens and tokens that belong to
    no word. Without any special token they are roots. A token belongs to the word of its first
    character that is in one. A word without a token (cut off, or white space) is passed over:
    what it heads hangs from its own head. (All of this is ours.)

    Args:
        offsets: first character of each token in its text, and the one behind its last.
        texts: which text each token is of (0 or 1); None for special tokens.
        words: the words of each text.
    """
    word_at = [
        {place: word for word, (start, end, _) in enumerate(own) for place in range(start, end)}
        for own in words
    ]
    place_of: list[Place | None] = []
    for (start, end), text in zip(offsets, texts, strict=True):
        numbers = [] if text is None else [word_at[text].get(at) for at in range(start, end)]
        number = next((number for number in numbers if number is not None), None)
        place_of.append(None if text is None or number is None else (text, number))
    first_piece: dict[Place, int] = {}
    for token, place in enumerate(place_of):
        if place is not None:
            first_piece.setdefault(place, token)
    root = texts.index(None) if None in texts else None
    heads = []
    for token, place in enumerate(place_of):
        if place is not None and first_piece[place] < token:
            heads.append(CONTINUES)
            continue
        head = None if place is None else _head(place, words[place[0]], first_piece)
        heads.append(next(at for at in (head, root, token) if at is not None))
    return heads


def _head(place: Place, words: Sequence[Word], first_piece: dict[Place, int]) -> int | None:
    """The first piece of the nearest word above that has one; None at the root."""
    text, number = place
    while (head := words[number][2]) != number:
        if (text, head) in first_piece:
            return first_piece[text, head]
        number = head
    return None
