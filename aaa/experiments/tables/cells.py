"""A table at one scale, and the runs that it asks for. What its keys mean: ``spec``."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from aaa.names import known_name

SOURCE = "pattern.source"  # the key by which a pattern is copied from a trained model


@dataclass(frozen=True)
class Column:
    """A column at one scale: a task, as a rule."""

    name: str
    label: str
    metric: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Pretraining:
    """A pre-training run that a cell starts from.

    Args:
        overrides: of the ``aaa pretrain`` that makes it.
        gives: overrides without their end, to which the folder of its model is added.
        adapts: the pre-training that this one goes on from, if it is not from scratch.
    """

    overrides: tuple[str, ...]
    gives: tuple[str, ...]
    adapts: Pretraining | None = None

    def also(self, overrides: tuple[str, ...]) -> Pretraining:
        """With further overrides, of what it goes on from too; its own number of steps stays."""
        if self.adapts is None:
            return replace(self, overrides=(*self.overrides, *overrides))
        return replace(
            self, overrides=(*overrides, *self.overrides), adapts=self.adapts.also(overrides)
        )

    @property
    def command(self) -> str:
        """What makes it."""
        return shlex.join(["aaa", "pretrain", *self.overrides])

    def given(self, folder: Path) -> tuple[str, ...]:
        """The cell's overrides once its model lies in ``folder``."""
        return tuple(_with_value(f"{beginning}{folder}") for beginning in self.gives)


@dataclass(frozen=True)
class Row:
    """A row at one scale. ``paper[quantity][column]`` is in percent, as printed."""

    name: str
    label: str
    overrides: tuple[str, ...]
    within: Mapping[str, tuple[str, ...]] = field(hash=False)  # by column
    compare: str | None
    target: float | str | None
    pretrained: Pretraining | None
    requires: tuple[str, ...]
    columns: tuple[str, ...] | None
    series: str | None
    x: float | None
    paper: Mapping[str, Mapping[str, float]] = field(hash=False)
    quoted: str | None

    @property
    def pattern(self) -> str | None:
        """The name of its pattern, where its overrides choose one."""
        return chosen("pattern", self.overrides)


@dataclass(frozen=True)
class Cell:
    """One run that a table asks for.

    Args:
        overrides: of the ``aaa finetune`` that does it.
        needs: pre-training runs without which it cannot start.
        requires: keys that the user has to give.
    """

    row: str
    column: str
    seed: int
    overrides: tuple[str, ...]
    needs: tuple[Pretraining, ...] = ()
    requires: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from the other cells of its table and scale."""
        return self.row, self.column, self.seed

    @property
    def pretraining(self) -> tuple[str, ...]:
        """What makes the encoders that it starts from, as its table says it."""
        runs = (run for need in self.needs for run in (need.adapts, need))
        return tuple(run.command for run in runs if run is not None)


@dataclass(frozen=True)
class Cost:
    """What the hours of runs are reckoned from before one is finished.

    Args:
        weights: of the encoder, or of each by its name in conf/model.
        tokens: a text.
        teraflops: a second, that each device reaches.
    """

    weights: float | Mapping[str, float] = field(hash=False)
    tokens: float
    teraflops: float

    def weights_of(self, model: str) -> float | None:
        """How many an encoder has; None where it is not said."""
        return self.weights.get(model) if isinstance(self.weights, Mapping) else self.weights


@dataclass(frozen=True)
class Table:
    """A table at one scale."""

    name: str
    scale: str
    title: str
    source: str
    notes: tuple[str, ...]
    kind: str
    quantities: tuple[str, ...]
    overrides: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    cost: Cost | None

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
            ValueError: naming the rows that there are.
        """
        return self._rows[known_name(name, self._rows, f"{self.name}: row")]

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            ValueError: naming the columns that there are at this scale.
        """
        columns = {column.name: column for column in self.columns}
        return columns[known_name(name, columns, f"{self.name} at scale {self.scale}: column")]

    def paper(self, row: str, column: str, quantity: str = "score") -> float | None:
        """The paper's figure, in percent as printed; None where it has none."""
        return self.row(row).paper.get(quantity, {}).get(column)

    def cells(
        self,
        rows: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> tuple[Cell, ...]:
        """The runs of the table or of a part of it: seed by seed, so that means grow evenly.

        Raises:
            ValueError: for a name that the table does not have.
        """
        chosen_rows = [self.row(name) for name in rows or self._rows]
        chosen_columns = [self.column(name) for name in columns or [c.name for c in self.columns]]
        return tuple(
            self._cell(row, column, seed)
            for seed in (self.seeds if seeds is None else seeds)
            for column in chosen_columns
            for row in chosen_rows
            if row.quoted is None and (row.columns is None or column.name in row.columns)
        )

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return {row.name: row for row in self.rows}

    def _cell(self, row: Row, column: Column, seed: int) -> Cell:
        target, needs = self._target(row, column)
        own = (row.pretrained,) if row.pretrained is not None else ()
        return Cell(
            row.name,
            column.name,
            seed,
            (
                *self.overrides,
                *column.overrides,
                *row.overrides,
                *row.within.get(column.name, ()),
                *target,
                f"seed={seed}",
            ),
            (*own, *needs),
            row.requires,
        )

    def _target(self, row: Row, column: Column) -> tuple[list[str], tuple[Pretraining, ...]]:
        """A learned row's target as overrides, and the pre-training that it is measured on."""
        if row.target is None:
            return [], ()
        if row.target == "paper":
            assert row.compare is not None
            rho = self.paper(row.compare, column.name, "rho")
            if rho is None:
                raise ValueError(
                    f"{self.name}, row {row.name}, column {column.name}: target: paper, but the "
                    f"paper has no rho of row {row.compare} there"
                )
            return [f"sparsity.target={rho / 100:g}"], ()
        matched = self.matched_row(row)
        if matched is None:
            return [f"sparsity.target={row.target}"], ()
        beginning = f"sparsity.target=match:{matched.pattern}"
        if matched.pretrained is None or f"{SOURCE}=" not in matched.pretrained.gives:
            return [beginning], ()
        return [], (replace(matched.pretrained, gives=(f"{beginning}:",)),)

    def matched_row(self, row: Row) -> Row | None:
        """The row whose measured rho is another's target, if it is that of a row."""
        if row.target == "match":
            return self.row(str(row.compare))
        return self._rows.get(str(row.target).removeprefix("match:"))


def _with_value(override: str) -> str:
    """The override with its value quoted for Hydra, whose grammar has no spaces in a plain one."""
    key, _, value = override.partition("=")
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def chosen(group: str, overrides: Iterable[str]) -> str | None:
    """The last choice of a config group among overrides."""
    choices = [o.removeprefix(f"{group}=") for o in overrides if o.startswith(f"{group}=")]
    return choices[-1] if choices else None
