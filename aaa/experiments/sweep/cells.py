"""Which cells a sweep is to run: those of a table, or a product of overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

from aaa.experiments.sweep.estimate import Load
from aaa.experiments.sweep.run_ids import Named
from aaa.experiments.tables.cells import Cell, Pretraining, Table
from aaa.experiments.tables.index import Record, write_records

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
        pretraining: the runs of ``needs`` and those that go on from them, by their commands.
    """

    label: str
    overrides: tuple[str, ...]
    needs: tuple[str, ...] = ()
    cell: Cell | None = None
    problem: str | None = None
    pretraining: Mapping[str, Load] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Known:
    """A wanted cell, with the name of its run or the reason why it has none.

    Args:
        load: what a run that waits for a pre-training will have to do.
    """

    wanted: Wanted
    named: Named | None = None
    problem: str | None = None
    load: Load | None = None

    def record(self) -> Record:
        """What a table's index keeps of it."""
        assert self.wanted.cell is not None
        return Record(
            *self.wanted.cell.key,
            overrides=self.wanted.overrides,
            run_id=self.named.run_id if self.named else None,
            needs=self.wanted.needs,
            problem=self.problem,
            pretraining=self.wanted.cell.pretraining,
        )


def write_known(output_dir: Path, table: Table, known: Sequence[Known], is_trial: bool) -> None:
    """Puts cells into their table's index.

    Args:
        output_dir: where the index and the runs lie.
        table: which they are of.
        known: the cells.
        is_trial: whether nothing is going to be run; a result that the index knows then stays
            in its cell, whatever the trial's own overrides would make of that.
    """
    cells = {one.wanted.cell.key: one.wanted.cell for one in known if one.wanted.cell is not None}

    def stays(record: Record) -> bool:
        is_current = is_trial and record.is_of(cells[record.key])
        return is_current and record.result(output_dir) is not None

    write_records(output_dir, table, [one.record() for one in known], stays)


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
    def find(needed: Pretraining) -> tuple[str, ...] | dict[str, Load]:
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
    cell: Cell,
    given: tuple[str, ...],
    find: Callable[[Pretraining], tuple[str, ...] | dict[str, Load]],
) -> Wanted:
    keys = {override.partition("=")[0].lstrip("+") for override in given}
    needs = [f"{key}=... on the command line" for key in cell.requires if key not in keys]
    overrides, first = list(cell.overrides), dict[str, Load]()
    for pretraining in cell.needs:
        found = find(pretraining)
        if isinstance(found, dict):
            needs.append(next(iter(found)))
            first |= found
        else:
            overrides += found
    return Wanted(_label(cell), (*overrides, *given), tuple(needs), cell, pretraining=first)


def _label(cell: Cell) -> str:
    return f"{cell.row} · {cell.column} · seed {cell.seed}"


def _found(pretraining: Pretraining) -> tuple[str, ...] | dict[str, Load]:
    """What a cell takes of its pre-training run, or by their commands the runs that come first."""
    from aaa.experiments.pretrained_runs import find_pretraining  # imports torch

    first: dict[str, Load] = {}
    start: tuple[str, ...] = ()
    if pretraining.adapts is not None:
        begun = find_pretraining(pretraining.adapts.overrides)
        if begun.model_folder is None:
            first[begun.command] = begun.load
        else:
            start = pretraining.adapts.given(begun.model_folder)
    run = find_pretraining((*pretraining.overrides, *start))
    if run.model_folder is not None and not first:
        return pretraining.given(run.model_folder)
    return first | {run.command: run.load}
