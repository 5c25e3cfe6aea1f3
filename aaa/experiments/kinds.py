"""Is each value of a config of the kind that its class declares?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from aaa.numbers import is_number

# The kinds that are looked at: how they are known, and what a message calls them.
PLAIN: dict[type, tuple[Callable[[Any], bool], str]] = {
    int: (lambda value: is_number(value, int), "a whole number"),
    float: (is_number, "a number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    str: (lambda value: isinstance(value, str), "a text"),
    NoneType: (lambda value: value is None, "null"),
}


def check_kinds(node: DictConfig, target: Any, group: str) -> None:
    """Raises a ValueError for a value of another kind than the field that it is meant for.

    YAML takes anything, and most classes count and compare with what they are given: 2.5 layers
    pass for as many until something far from here cannot build them. Plain fields are looked at
    and mappings to plain values; what is a choice or a list, its class checks itself.

    Args:
        node: of a config.
        target: the class that it is turned into; nothing is checked if that is no dataclass.
        group: what the node is called in the config.
    """
    hints = get_type_hints(target) if dataclasses.is_dataclass(target) else {}
    for name, value in ((str(key), value) for key, value in node.items()):
        hint = hints.get(name)
        if get_origin(hint) is not Mapping:
            _check(value, _kinds(hint), f"{group}.{name}")
        elif not OmegaConf.is_dict(value):
            raise ValueError(f"{group}.{name} must be a mapping, not {value!r}")
        else:
            for key, entry in ((str(key), entry) for key, entry in value.items()):
                # A key of null counts as not given: what is beneath cannot be taken out otherwise.
                _check(entry, (*_kinds(get_args(hint)[1]), NoneType), f"{group}.{name}.{key}")


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _check(value: Any, kinds: tuple[Any, ...], where: str) -> None:
    if not set(kinds) <= set(PLAIN) or any(PLAIN[kind][0](value) for kind in kinds):
        return
    right = " or ".join(PLAIN[kind][1] for kind in kinds)
    quote = str in kinds and is_number(value)
    how = f": quote it twice, \"{where}='{value}'\"" if quote else ""
    raise ValueError(f"{where} must be {right}, not {value!r}{how}")
