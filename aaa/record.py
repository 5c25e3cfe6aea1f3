"""What a sparse model's config.json says of its pattern, so that the model can be loaded again."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from transformers import PreTrainedConfig

from aaa.fingerprint import hash_json
from aaa.numbers import is_number
from aaa.patterns import Pattern, pattern_from_spec

KEY = "adaptive_axis_attention"  # of the record in config.json
FORMAT = 1  # of the record; goes up when an older aaa would misread a newer one


def make_record(pattern: Pattern, executor: str) -> dict[str, Any]:
    """What a model's config, which ``save_pretrained`` writes, is to say of both under ``KEY``."""
    spec = pattern.spec()
    return {
        "format": FORMAT,
        "version": importlib.metadata.version("adaptive-axis-attention"),
        "executor": executor,
        "pattern": spec,
        "digest": hash_json(spec),
    }


def drop_record(config: PreTrainedConfig) -> str | None:
    """Takes the record out of a config that no longer is a sparse model's.

    Returns:
        The name of the pattern's class, or None if there was no record.
    """
    record = config.__dict__.pop(KEY, None)
    return None if record is None else str(_field(_field(record, "pattern"), "pattern"))


def read_record(config: PreTrainedConfig, pattern: Pattern | None) -> tuple[Pattern, str]:
    """The pattern (the given one, if any) and the executor that a config has on record.

    Raises:
        ValueError: if there is no record, it is of another format, was changed by hand, or names
            a pattern that only its author can build.
    """
    record = getattr(config, KEY, None)
    if record is None:
        raise ValueError(f"it is not a sparse model's: its config.json has no {KEY!r}")
    found = _field(record, "format")
    if not is_number(found, int) or found != FORMAT:
        raise ValueError(
            f"it was saved by aaa {_field(record, 'version')} in format {found!r}, but this aaa "
            f"reads format {FORMAT}: load it with that version, or save it anew with this one"
        )
    spec = _field(record, "pattern")
    if pattern is None:
        pattern = _own_pattern(spec, _field(record, "digest"))
    return pattern, str(_field(record, "executor"))


def _own_pattern(spec: Any, digest: Any) -> Pattern:
    if hash_json(spec) != digest:
        raise ValueError(
            "its pattern was changed after it was saved: the digest in config.json does not fit. "
            "To load the weights under another pattern, pass pattern="
        )
    foreign = sorted(_foreign_classes(spec))
    if foreign:
        raise ValueError(
            f"its pattern {foreign[0]} is not one of aaa.patterns, so it cannot be built by name: "
            "pass pattern="
        )
    return pattern_from_spec(spec)


def _foreign_classes(spec: Any) -> set[str]:
    """The classes in a spec that are named with their module."""
    if isinstance(spec, dict):
        own = {spec["pattern"]} if "." in str(spec.get("pattern")) else set()
        return own.union(*map(_foreign_classes, spec.values()))
    return set().union(*map(_foreign_classes, spec)) if isinstance(spec, list) else set()


def _field(record: Any, name: str) -> Any:
    return record.get(name) if isinstance(record, dict) else None
