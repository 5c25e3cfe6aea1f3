"""Patterns from plain JSON: the way back from ``Pattern.spec``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from aaa.names import known_name
from aaa.patterns.base import HOME, Pattern

CLASS = "pattern"  # the key that names the class; all others are its arguments


def pattern_from_spec(spec: Any) -> Pattern:
    """The pattern that ``Pattern.spec`` described, ready for ``sparsify``.

    Only classes of ``aaa.patterns`` are ever built, so a spec from elsewhere runs no code of its
    own.

    Raises:
        ValueError: if the spec is no such description, or names a class or an argument that is
            unknown; the message lists the known ones.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get(CLASS), str):
        raise ValueError(f'a pattern\'s spec is {{"{CLASS}": "Local", "size": 2}}, not {spec!r}')
    name = spec[CLASS]
    known = known_patterns()
    parameters = inspect.signature(known[known_name(name, sorted(known), "pattern")]).parameters
    given = {key: _rebuilt(value) for key, value in spec.items() if key != CLASS}
    for key in given:
        known_name(key, parameters, f"{name}'s argument")
    several = [key for key, p in parameters.items() if p.kind is p.VAR_POSITIONAL]  # of Union
    try:
        listed = [item for key in several for item in given.pop(key, ())]
        return known[name](*listed, **given)
    except TypeError as error:  # an argument is missing, or of another type than it can be
        raise ValueError(f"{name} cannot be built from {dict(spec)!r}: {error}") from error


def known_patterns() -> dict[str, type[Pattern]]:
    """The pattern classes of ``aaa.patterns`` by name."""
    return {
        kind.__name__: kind for kind in _subclasses(Pattern) if kind.__module__.startswith(HOME)
    }


def _subclasses(kind: type[Pattern]) -> Iterator[type[Pattern]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _rebuilt(value: Any) -> Any:
    if isinstance(value, Mapping):
        return pattern_from_spec(value)
    if isinstance(value, list):
        return [_rebuilt(item) for item in value]
    return value
