"""The nodes of a yaml: what is not as it should be is refused, with its place in the file.

Each raises ``ValueError`` that begins with ``where``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aaa.names import known_name
from aaa.numbers import is_number


def only_keys(node: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Refuses a key that is not known."""
    for key in node:
        known_name(key, keys, f"{where}: key")


def mapping_under(node: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """The mapping under a key, which must be there and not be empty."""
    if key not in node:
        raise ValueError(f"{where}: there is no {key!r}")
    found = as_mapping(node[key], f"{where}, {key}")
    if not found:
        raise ValueError(f"{where}, {key} is empty")
    return found


def as_mapping(node: Any, where: str) -> Mapping[str, Any]:
    """A node that is to be a mapping."""
    if not isinstance(node, Mapping):
        raise ValueError(f"{where} is a mapping, not {node!r}")
    return {str(key): value for key, value in node.items()}


def as_words(node: Any, where: str) -> tuple[str, ...]:
    """A node that is to be a list of words."""
    if not isinstance(node, list) or not all(isinstance(word, str) for word in node):
        raise ValueError(f"{where} is a list of words, not {node!r}")
    return tuple(node)


def names_under(
    node: Mapping[str, Any],
    key: str,
    what: str,
    known: Iterable[str],
    where: str,
    default: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Known names under a key, at least one and each once; without it ``default``, or all.

    Args:
        what: one of them is called.
    """
    known = list(known)
    names = as_words(node.get(key, list(default or known)), f"{where}, {key}")
    if not names:
        raise ValueError(f"{where}, {key} is empty; known: {', '.join(known)}")
    for name in names:
        known_name(name, known, f"{where}: {what}")
        if names.count(name) > 1:
            raise ValueError(f"{where}, {key} has {name} more than once; each is there once")
    return names


def text_under(node: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
    """The text under a key."""
    text = node.get(key, default)
    if not isinstance(text, str):
        raise ValueError(f"{where}: {key} is a text, not {text!r}")
    return text


def word_under(node: Mapping[str, Any], key: str, where: str) -> str | None:
    """The word under a key, or None where it is not there; a number is a word, too."""
    word = node.get(key)
    if word is None or isinstance(word, str) or is_number(word):
        return None if word is None else str(word)
    raise ValueError(f"{where}: {key} is a word, not {word!r}")
