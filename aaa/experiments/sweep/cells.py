"""Which cells a sweep is to run: those of a table, or a product of overrides."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from aaa.experiments.tables.cells import Cell, Pretraining

# What a table says itself; and the option by which a part of it is chosen.
OF_THE_TABLE = {"task": "columns", "pattern": "rows", "seed": "seeds"}


@dataclass(frozen=True)
class Wanted:
    """A cell, with the overrides of its run.

    Args:
        label: what people call it.
        needs: what has to be there before it can start.
        cell: its place in a table, if it has one.
        problem: why it could not be started at all, where that is known already.
    """

    label: str
    overrides: tuple[str, ...]
    needs: tuple[str, ...] = ()
    cell: Cell | None = None
    problem: str | None = None


def of_table(
    table: str, cells: Sequence[Cell], given: Sequence[str], of_pretraining: Sequence[str] = ()
) -> list[Wanted]:
    """A table's cells.

    Args:
        table: its name.
        cells: those wanted.
        given: overrides for all of them, with the last word.
        of_pretraining: likewise, for the pre-training runs that they start from.
    """
    places = [override for override in given if override.startswith("run.output_dir=")]

    @cache  # many cells start from one pre-training
    def find(needed: Pretraining) -> tuple[str, ...] | str:
        return _found(needed.also((*of_pretraining, *places)))

    wanted = []
    for cell in cells:
        try:
            wanted.append(_of_cell(cell, tuple(given), find))
        except ValueError as error:
            problem = f"{table}, row {cell.row}, pretrained: {error}"
            wanted.append(Wanted(_label(cell), cell.overrides, cell=cell, problem=problem))
    return wanted


def check_given(overrides: Sequence[Override]) -> None:
    """Checks that overrides for all cells leave to the table what is the table's.

    Raises:
        ValueError: for one that has several values, or is about what the rows and columns say.
    """
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            raise ValueError(
                f"{override.input_line}: a table has its own cells, which rows=, columns= and "
                "seeds= choose; other overrides have one value"
            )
        if key in OF_THE_TABLE:
            raise ValueError(
                f"{override.input_line}: the table says which; {OF_THE_TABLE[key]}=... chooses "
                "a part of it"
            )


def of_product(overrides: Sequence[Override]) -> list[Wanted]:
    """Every combination of the values that overrides have."""
    [combinations] = BasicSweeper.split_arguments(list(overrides), None)
    varying = {o.get_key_element() for o in overrides if o.is_sweep_override()}
    wanted = []
    for combination in combinations:
        told = [pair for pair in combination if pair.partition("=")[0] in varying]
        wanted.append(Wanted(" · ".join(told) or "the run", tuple(combination)))
    return wanted


def _of_cell(
    cell: Cell, given: tuple[str, ...], find: Callable[[Pretraining], tuple[str, ...] | str]
) -> Wanted:
    keys = {override.partition("=")[0].lstrip("+") for override in given}
    needs = [f"{key}=... on the command line" for key in cell.requires if key not in keys]
    overrides = list(cell.overrides)
    for pretraining in cell.needs:
        found = find(pretraining)
        if isinstance(found, str):
            needs.append(found)
        else:
            overrides += found
    return Wanted(_label(cell), (*overrides, *given), tuple(needs), cell)


def _label(cell: Cell) -> str:
    return f"{cell.row} · {cell.column} · seed {cell.seed}"


def _found(pretraining: Pretraining) -> tuple[str, ...] | str:
    """What a cell takes of its pre-training run, or the command that has to come first."""
    try:
        runs = importlib.import_module("aaa.experiments.pretrained_runs")  # imports torch
    except ModuleNotFoundError:
        return pretraining.command
    start: tuple[str, ...] = ()
    if pretraining.adapts is not None:
        begun = runs.find_pretraining(pretraining.adapts.overrides)
        if begun.model_folder is None:
            return begun.command
        start = pretraining.adapts.given(begun.model_folder)
    run = runs.find_pretraining((*pretraining.overrides, *start))
    return run.command if run.model_folder is None else pretraining.given(run.model_folder)
