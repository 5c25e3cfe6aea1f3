"""What a sweep is about: its cells, the names of their runs, and which of those are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from aaa.experiments.result import is_finished, read_result
from aaa.experiments.sweep.cells import (
    Known,
    Wanted,
    check_given,
    of_product,
    of_table,
    write_known,
)
from aaa.experiments.sweep.options import Options
from aaa.experiments.sweep.run_ids import FILE, RunIds
from aaa.experiments.tables.spec import Table


@dataclass(frozen=True)
class Survey:
    """A sweep at one moment.

    Args:
        known: its cells.
        results: by their names the runs of those that have one, None for a run without an end.
        to_do: the runs to be done by their names, each with the first cell that wants it.
    """

    known: Sequence[Known]
    results: Mapping[str, dict[str, Any] | None]
    to_do: Mapping[str, Known]

    @cached_property
    def finished(self) -> list[dict[str, Any]]:
        """The results that count."""
        return [r for r in self.results.values() if r is not None and is_finished(r)]

    @cached_property
    def refused(self) -> list[Known]:
        """The cells that cannot be run."""
        return [one for one in self.known if one.problem is not None]

    @cached_property
    def waiting(self) -> list[Known]:
        """The cells that wait for a pre-training run."""
        return [one for one in self.known if one.wanted.pretraining and one.load is not None]

    @cached_property
    def needs(self) -> Counter[str]:
        """What has to be there first, and how many cells wait for it."""
        return Counter(need for one in self.known for need in one.wanted.needs)


class Surveyor:
    """Looks what there is to be done, again and again as pre-training runs come in.

    Args:
        options: the sweep's.
        table: whose cells are wanted; None for the product of ``overrides``.
        overrides: for every run.
        compose: makes the config of a job's overrides, Hydra's own part included.
        output_dir: where runs, their names and a table's index lie.
        console: shows the progress of naming.
    """

    def __init__(
        self,
        options: Options,
        table: Table | None,
        overrides: Sequence[Override],
        compose: Callable[[Sequence[str]], DictConfig],
        output_dir: Path,
        console: Console,
    ) -> None:
        self.options, self.table, self.overrides = options, table, overrides
        self.output_dir, self.console = output_dir, console
        self._names = RunIds(output_dir / "cache" / FILE, compose)

    def look(self) -> Survey:
        """What there is now, which the table's index is told too.

        Raises:
            ValueError: for overrides that make no cells, or not one that can be run.
        """
        known = self._named(self._wanted())
        names = {one.named.run_id for one in known if one.named is not None}
        results = {name: read_result(self.output_dir / "runs" / name) for name in names}
        if self.table is not None:
            write_known(self.output_dir, self.table, known, self.options.dry_run)
        return Survey(known, results, self._missing(known, results))

    def _wanted(self) -> list[Wanted]:
        options = self.options
        if self.table is None:
            return of_product(self.overrides)
        given = [one for one in self.overrides if one.get_key_element() != "scale"]
        check_given(given)
        cells = self.table.cells(_names(options.rows), _names(options.columns), options.seeds)
        lines = [str(override.input_line) for override in given]
        return of_table(self.table.name, cells, lines, options.pretrain_overrides)

    def _named(self, wanted: Sequence[Wanted]) -> list[Known]:
        """Every cell with its run's name, or what it will have to do once it has one."""
        known = []
        bar = {"console": self.console, "disable": not self.console.is_terminal}
        for one in track(wanted, "naming the runs", transient=True, **bar):  # type: ignore[arg-type]
            try:
                if one.problem is not None:
                    known.append(Known(one, problem=one.problem))
                elif one.needs:
                    known.append(Known(one, load=self._names.load(one.overrides)))
                else:
                    known.append(Known(one, named=self._names.find(one.overrides)))
            except ValueError as error:
                known.append(Known(one, problem=str(error)))
        self._names.save()
        problems = [one.problem for one in known if one.problem is not None]
        if len(problems) == len(known):
            raise ValueError("\n".join(dict.fromkeys(problems)) or "there are no such cells")
        return known

    def _missing(
        self, known: Sequence[Known], results: Mapping[str, dict[str, Any] | None]
    ) -> dict[str, Known]:
        missing: dict[str, Known] = {}
        for one in known:
            if one.named is None:
                continue
            result = results[one.named.run_id]
            if result is None or (self.options.retry_failed and not is_finished(result)):
                missing.setdefault(one.named.run_id, one)
        return missing


def _names(given: Sequence[Any] | None) -> list[str] | None:
    """Of rows or columns; Hydra makes a number of a name that looks like one."""
    return None if given is None else [str(name) for name in given]
