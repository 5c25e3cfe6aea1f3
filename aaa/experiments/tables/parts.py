"""A table's columns and rows, read from its file; ``spec`` says what they may have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aaa.experiments.tables.cells import Column, Pretraining, Row
from aaa.experiments.tables.nodes import (
    as_mapping,
    as_words,
    names_under,
    only_keys,
    text_under,
    word_under,
)
from aaa.names import known_name
from aaa.numbers import is_finite
from aaa.places import config_names

QUANTITIES = ("rho", "score", "row_share", "column_share")
COLUMN_KEYS = ("label", "metric", "overrides", "at")
ROW_KEYS = (
    "label", "overrides", "at", "in", "compare", "target", "pretrained", "requires", "columns",
    "series", "x", "paper", "quoted",
)  # fmt: skip


def read_column(name: str, node: Any, scale: str, scales: Iterable[str], where: str) -> Column:
    """A column of the file at a scale."""
    where = f"{where}, column {name}"
    node = as_mapping(node or {}, where)
    only_keys(node, COLUMN_KEYS, where)
    label, overrides = _at_scale(name, node, scale, scales, where)
    return Column(name, label, text_under(node, "metric", where, default=""), overrides)


def read_row(
    name: str,
    node: Mapping[str, Any],
    scale: str,
    scales: Mapping[str, Any],
    columns: Mapping[str, Any],
    where: str,
) -> Row:
    """A row of the file at a scale; ``scales`` and ``columns`` are those declared."""
    where = f"{where}, row {name}"
    only_keys(node, ROW_KEYS, where)
    at = scales[scale]
    label, overrides = _at_scale(name, node, scale, scales, where)
    within = as_mapping(node.get("in", {}), f"{where}, in")
    pretrained = None
    if "pretrained" in node:
        pretrained = _pretraining(node["pretrained"], at, scale, where)
        overrides = (*as_words(at.get("pretrained", []), f"{where}, pretrained"), *overrides)
    x = node.get("x")
    if x is not None and not is_finite(x):
        raise ValueError(f"{where}: x is a finite number, not {x!r}")
    return Row(
        name=name,
        label=label,
        overrides=overrides,
        within={
            known_name(column, columns, f"{where}, in: column"): as_words(
                own, f"{where}, in, {column}"
            )
            for column, own in within.items()
        },
        compare=word_under(node, "compare", where),
        target=node.get("target"),
        pretrained=pretrained,
        requires=as_words(node.get("requires", []), f"{where}, requires"),
        columns=names_under(node, "columns", "column", columns, where)
        if node.get("columns") is not None
        else None,
        series=word_under(node, "series", where),
        x=x,
        paper=_paper(node.get("paper", {}), columns, f"{where}, paper"),
        quoted=word_under(node, "quoted", where),
    )


def _paper(node: Any, columns: Iterable[str], where: str) -> Mapping[str, Mapping[str, float]]:
    """The paper's figures, by quantity and column."""
    paper = as_mapping(node, where)
    for quantity, figures in paper.items():
        known_name(quantity, QUANTITIES, f"{where}: quantity")
        for column, figure in as_mapping(figures, f"{where}, {quantity}").items():
            known_name(column, columns, f"{where}: column")
            if not is_finite(figure):
                raise ValueError(
                    f"{where}, {quantity}, {column} is a finite number in percent, not {figure!r}"
                )
            if quantity != "score" and not 0 <= figure <= 100:
                raise ValueError(f"{where}, {quantity}, {column} is in [0, 100], not {figure!r}")
    return paper


def _pretraining(node: Any, at: Mapping[str, Any], scale: str, where: str) -> Pretraining:
    where = f"{where}, pretrained"
    node = as_mapping(node, where)
    only_keys(node, ("pattern", "gives", "adapts", "steps"), where)
    gives = as_words(node.get("gives", ["model.path"]), f"{where}, gives")
    if not gives:
        raise ValueError(f"{where}, gives is empty; leave it out for [model.path]")
    common = as_words(at.get("pretrain", []), f"{where}, pretrain")
    own = (*common, _pattern_under(node, "pattern", where))
    adapts = None
    if "adapts" in node:
        adapts = Pretraining((*common, _pattern_under(node, "adapts", where)), ("model.path=",))
        steps = as_mapping(node.get("steps", {}), f"{where}, steps").get(scale)
        if not isinstance(steps, int):
            raise ValueError(f"{where}: adapts needs steps at scale {scale}, a whole number")
        own = (*own, f"training.max_steps={steps}")
    elif "steps" in node:
        raise ValueError(f"{where}: steps are for adapts, the pattern that is gone on from")
    return Pretraining(own, tuple(f"{key}=" for key in gives), adapts)


def _pattern_under(node: Mapping[str, Any], key: str, where: str) -> str:
    """The override that chooses the pattern under a key."""
    name = text_under(node, key, where)
    return f"pattern={known_name(name, config_names('pattern'), f'{where}, {key}: pattern')}"


def _at_scale(
    name: str, node: Mapping[str, Any], scale: str, scales: Iterable[str], where: str
) -> tuple[str, tuple[str, ...]]:
    """The label and the overrides of a row or column at a scale."""
    ats = as_mapping(node.get("at", {}), f"{where}, at")
    for name_of_scale in ats:
        known_name(name_of_scale, scales, f"{where}, at: scale")
    at = as_mapping(ats.get(scale, {}), f"{where}, at {scale}")
    only_keys(at, ("label", "overrides"), f"{where}, at {scale}")
    label = word_under(at, "label", f"{where}, at {scale}") or word_under(node, "label", where)
    return label or name, (
        *as_words(node.get("overrides", []), f"{where}, overrides"),
        *as_words(at.get("overrides", []), f"{where}, at {scale}, overrides"),
    )
