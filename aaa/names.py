"""Names that have to be known ones: of patterns, metrics, tables, keys of a config."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def known_name(name: object, known: Iterable[str], what: str) -> str:
    """The name itself, if it is a known one.

    Args:
        name: as given.
        known: in the order in which they are to be told.
        what: is named, and where; the message begins with it.

    Raises:
        ValueError: naming those that are known, the nearest first.
    """
    names = list(known)
    if name not in names:
        raise ValueError(f"{what} {name!r} is unknown{known_names(name, names)}")
    return str(name)


def known_names(name: object, known: Iterable[str]) -> str:
    """How a message about an unknown name ends."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    meant = f", did you mean {near[0]}?" if near else ";"
    return f"{meant} known: {', '.join(names)}"
