"""A table as data: one yaml of conf/table, read at one scale. Neither torch nor Hydra.

The file's keys (docs/tables.md shows a whole example):

``extends``
    A file of conf/table/base that lies beneath this one: mappings are merged, all else replaced.
``title``, ``source``, ``notes``, ``kind``, ``quantities``
    What stands above the table; where the paper has it; remarks below it; ``table`` or
    ``figure``; what a cell shows, of ``rho``, ``score``, ``row_share``, ``column_share``
    (all in percent).
``columns``
    By name, in the paper's order. Each has a ``label``, a ``metric`` (as the paper calls it),
    ``overrides`` of ``aaa finetune`` and, at a scale, ``at: {<scale>: {label, overrides}}``.
``rows``
    By name, from above. Each may have

    - ``label``, ``overrides``, ``at`` as a column has; ``in: {<column>: [overrides]}``;
    - ``compare``: the row that it is compared with (the paper's arrows);
    - ``target``, for a learned pattern: ``match`` (the rho that the compared row's pattern has on
      the same texts), ``match:<another row, or a pattern of conf/pattern>``, ``paper`` (the rho
      that the paper reports of the compared row) or a number in [0, 1);
    - ``pretrained: {pattern, gives}``: the cells start from the encoder of ``aaa pretrain
      pattern=<pattern>``; its folder becomes the value of every key in ``gives`` (``model.path``
      unless told otherwise). ``adapts: <pattern>, steps: {<scale>: n}``: that run goes on for so
      many steps from the encoder of ``aaa pretrain pattern=<that pattern>``;
    - ``requires``: keys that only a user can give, such as ``data.parses``;
    - ``columns``: the only columns in which it has cells;
    - ``series`` and ``x``: its line and place in a figure;
    - ``paper``: the paper's figures, ``{<quantity>: {<column>: number}}``;
    - ``quoted``: whose figures they are, if not the paper's own: such a row has no runs.
``scales``
    By name. Each has ``overrides`` for every cell, ``columns`` (names, in their order; all
    without), ``seeds``, ``pretrain`` (overrides of its pre-training runs), ``pretrained``
    (overrides of cells that start from one), ``rows`` (the only rows; all without) and ``cost``,
    from which its hours are estimated: ``weights`` of the encoder (or of each by its name in
    conf/model), ``tokens`` a text, and ``teraflops`` a second of each device.

Overrides have the last word in this order: scale, pretrained, column, row, target, seed, and
then what stands on the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from aaa.experiments.tables.cells import (
    Cell,
    Column,
    Cost,
    Pretraining,
    Row,
    Table,
)
from aaa.experiments.tables.nodes import (
    as_mapping,
    as_words,
    mapping_under,
    names_under,
    only_keys,
    text_under,
)
from aaa.experiments.tables.parts import QUANTITIES, read_column, read_row
from aaa.names import known_name
from aaa.numbers import is_finite, is_number
from aaa.places import config_folder, config_names, first_line

__all__ = ["Cell", "Column", "Pretraining", "Row", "Table", "load_table", "scales_of"]

KINDS = ("table", "figure")

SPEC_KEYS = (
    "extends", "title", "source", "notes", "kind", "quantities", "columns", "rows", "scales",
)  # fmt: skip
SCALE_KEYS = ("overrides", "columns", "rows", "seeds", "pretrain", "pretrained", "cost")
COST_KEYS = ("weights", "tokens", "teraflops")


def table_folder() -> Path:
    """Where the shipped tables lie."""
    return config_folder() / "table"


def table_names() -> list[str]:
    """The shipped tables."""
    return config_names("table")


def find_table(name: str) -> Path:
    """The file of ``4``, ``table_4``, ``figure_2``, ..., or of a path to a yaml of one's own.

    Raises:
        ValueError: naming the tables that there are.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ValueError(f"there is no table {name}; give a path to a yaml, or a name")
        return path
    known = table_names()
    numbered = f"table_{name}"
    by_number = name.isdigit() and numbered in known
    stem = numbered if by_number else known_name(name, known, "table")
    return table_folder() / f"{stem}.yaml"


def load_table(name: str, scale: str = "demo") -> Table:
    """A table at a scale.

    Raises:
        ValueError: for an unknown table or scale, or a file that is not as the module says,
            naming the file and the place in it.
    """
    path = find_table(name)
    spec = _read(path)
    where = path.name
    only_keys(spec, SPEC_KEYS, where)
    scales = _scales(spec, where)
    at = mapping_under(scales, known_name(scale, scales, f"{where}: scale"), f"{where}, scales")
    only_keys(at, SCALE_KEYS, f"{where}, scale {scale}")
    declared = mapping_under(spec, "columns", where)
    rows = mapping_under(spec, "rows", where)
    scale_where, rows_where = f"{where}, scale {scale}", f"{where}, rows"
    table = Table(
        name=path.stem,
        scale=scale,
        title=text_under(spec, "title", where),
        source=text_under(spec, "source", where, default=""),
        notes=as_words(spec.get("notes", []), f"{where}, notes"),
        kind=known_name(spec.get("kind", "table"), KINDS, f"{where}: kind"),
        quantities=names_under(
            spec, "quantities", "quantity", QUANTITIES, where, default=("rho", "score")
        ),
        overrides=as_words(at.get("overrides", []), f"{scale_where}, overrides"),
        columns=tuple(
            read_column(name, declared[name], scale, scales, where)
            for name in names_under(at, "columns", "column", declared, scale_where)
        ),
        rows=tuple(
            read_row(name, mapping_under(rows, name, rows_where), scale, scales, declared, where)
            for name in names_under(at, "rows", "row", rows, scale_where)
        ),
        seeds=_seeds(at.get("seeds", [0]), f"{scale_where}, seeds"),
        cost=_cost(at["cost"], f"{scale_where}, cost") if "cost" in at else None,
    )
    _check(table, rows, where)
    return table


def scales_of(name: str) -> list[str]:
    """The scales that a table has."""
    path = find_table(name)
    return list(_scales(_read(path), path.name))


def _scales(spec: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """By name, which is a part of the names of files."""
    scales = mapping_under(spec, "scales", where)
    for scale in scales:
        if "/" in scale:
            raise ValueError(
                f"{where}, scales: {scale!r} has a slash; a name without one is needed"
            )
    return scales


def _read(path: Path) -> dict[str, Any]:
    """The file over what it extends, as plain Python."""
    try:
        spec = OmegaConf.load(path)
        if not isinstance(spec, DictConfig):
            raise ValueError(f"{path.name} is no mapping")
        base = spec.get("extends")
        if base is not None:
            folder = table_folder() / "base"
            known = {file.stem: file for file in folder.glob("*.yaml")}
            spec = OmegaConf.merge(
                OmegaConf.load(known[known_name(base, known, f"{path.name}: extends")]), spec
            )
        plain = OmegaConf.to_container(spec, resolve=False)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{path}{place} is no YAML: {error.problem}") from error
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _check(table: Table, declared: Mapping[str, Any], where: str) -> None:
    """What one row says of another."""
    present = {row.name: row for row in table.rows}
    for row in table.rows:
        place = f"{where}, row {row.name}"
        if row.compare is not None:
            known_name(row.compare, declared, f"{place}: compare: row")
            if row.compare not in present:
                raise ValueError(
                    f"{place} is compared with {row.compare}, which scale {table.scale} leaves out"
                )
            _check_compared(row, present, place)
        _check_target(table, row, place)
        if row.quoted is not None and (row.overrides or row.target is not None):
            raise ValueError(f"{place} is quoted, so it has no runs: leave out its overrides")


def _check_compared(row: Row, present: Mapping[str, Row], place: str) -> None:
    """Refuses a row that is compared with itself, over however many others."""
    passed, compare = [row.name], row.compare
    while compare is not None and compare in present and compare not in passed:
        passed.append(compare)
        compare = present[compare].compare
    if compare == row.name:
        way = " -> ".join([*passed, row.name])
        raise ValueError(f"{place} is compared with itself: {way}; leave one compare: out")


def _check_target(table: Table, row: Row, place: str) -> None:
    target = row.target
    if target in ("match", "paper") and row.compare is None:
        raise ValueError(f"{place}: target: {target} needs compare: <row>")
    if isinstance(target, str):
        if target not in ("match", "paper") and not target.startswith("match:"):
            raise ValueError(
                f"{place}: target is match, match:<row or pattern>, paper or a number in [0, 1), "
                f"not {target!r}"
            )
        matched = table.matched_row(row)
        if matched is not None and (
            matched.pattern is None or any(o.startswith("pattern.") for o in matched.overrides)
        ):
            raise ValueError(
                f"{place}: the rho of row {matched.name} can be matched only if its pattern is "
                f"one of conf/pattern as it stands, not {' '.join(matched.overrides)}"
            )
        if matched is None and target != "paper":
            known = dict.fromkeys([row.name for row in table.rows] + config_names("pattern"))
            known_name(target.removeprefix("match:"), known, f"{place}: target: row or pattern")
    elif target is not None and not (is_number(target) and 0 <= target < 1):
        raise ValueError(f"{place}: target is a share in [0, 1), not {target!r}")


def _seeds(node: Any, where: str) -> tuple[int, ...]:
    whole = isinstance(node, list) and node and all(type(s) is int and s >= 0 for s in node)
    if not whole or len(set(node)) < len(node):
        raise ValueError(f"{where} are different whole numbers of 0 or more, not {node!r}")
    return tuple(node)


def _cost(node: Any, where: str) -> Cost:
    node = as_mapping(node, where)
    weights = node.get("weights")
    numbers = [*(weights.values() if isinstance(weights, Mapping) else [weights])]
    numbers += [value for key, value in node.items() if key != "weights"]
    if set(node) != set(COST_KEYS) or not all(is_finite(n) and n > 0 for n in numbers):
        raise ValueError(f"{where} has numbers above 0 for {', '.join(COST_KEYS)}, not {node!r}")
    return Cost(**node)
