"""A sweep from its command line to its last word."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from rich.progress import track

from aaa.experiments.login import check_login
from aaa.experiments.result import is_finished, read_result
from aaa.experiments.sweep.cells import (
    Known,
    Wanted,
    check_given,
    of_product,
    of_table,
    write_known,
)
from aaa.experiments.sweep.conduct import Conductor, Job
from aaa.experiments.sweep.display import SweepDisplay, own_console
from aaa.experiments.sweep.estimate import by_flops, estimate
from aaa.experiments.sweep.options import SWITCHES
from aaa.experiments.sweep.pretrain import PRETRAIN, pretrain
from aaa.experiments.sweep.run_ids import FILE, RunIds
from aaa.experiments.sweep.session import Ended, Session
from aaa.experiments.tables.spec import Table, load_table
from aaa.numbers import check_bool

if TYPE_CHECKING:
    from hydra_plugins.aaa_cells.sweeper import CellSweeper

DEFAULT_SCALE = "demo"
USER_ERROR = 2


def sweep(plugin: CellSweeper, arguments: Sequence[str]) -> None:
    """Runs what a multirun asks for, says what came out, and exits unless all is well.

    Exit codes: 1 if a cell failed, 2 if one was refused, 128 + n if signal n stopped it. Cells
    that wait for a pre-training or an option are told, and no error.
    """
    try:
        code = Sweep(plugin, arguments).run()
    except ValueError as error:
        print(f"aaa: {error}", file=sys.stderr)
        code = USER_ERROR
    if code:
        sys.exit(code)


class Sweep:
    """One multirun.

    Args:
        plugin: Hydra's sweeper, with its options.
        arguments: the overrides of the command line.

    Raises:
        ValueError: if they make no sense, or not one of the cells can be run.
    """

    def __init__(self, plugin: CellSweeper, arguments: Sequence[str]) -> None:
        for switch in SWITCHES:  # Hydra makes a text of a mistyped one, which would be true
            check_bool(switch, getattr(plugin, switch))
        self.plugin = plugin
        self.console = own_console()
        self.output_dir = Path(plugin.config.run.output_dir)
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"run.output_dir cannot be made: {error}") from error
        self.runs = self.output_dir / "runs"
        parser = OverridesParser.create(config_loader=plugin.hydra_context.config_loader)
        self.overrides = parser.parse_overrides(list(arguments))
        scales = [o.value() for o in self.overrides if o.get_key_element() == "scale"]
        self.table: Table | None = None
        if plugin.table is not None:
            self.table = load_table(plugin.table, str(scales[-1]) if scales else DEFAULT_SCALE)
        load = plugin.hydra_context.config_loader.load_sweep_config
        self.names = RunIds(
            self.output_dir / "cache" / FILE,
            lambda overrides: load(plugin.config, list(overrides)),
        )
        self.told: set[str] = set()  # labels of refused cells
        self.ended: dict[str, Ended] = {}
        self.signal_number: int | None = None
        self._look()

    def run(self) -> int:
        """Does what is missing; returns the exit code."""
        self._announce()
        if self.to_do or self.plugin.pretrain:
            check_login(self.plugin.config.logger)
        if self.plugin.dry_run:
            for one in self.to_do.values():
                self._say(f"would run {one.wanted.label}: {' '.join(one.wanted.overrides)}")
            self._say_needs()
            return USER_ERROR if self._refused else 0
        tried: set[str] = set()
        # What adapts an encoder is known by name once that encoder is there.
        while self.plugin.pretrain and self._pretrain(tried):
            self._look()
        if tried:
            self._announce()
        if self.to_do:
            self._conduct()
        return self._conclude()

    def _look(self) -> None:
        """What the cells are, and which of their runs are there."""
        self.known = self._named(self._wanted())
        names = {one.named.run_id for one in self.known if one.named is not None}
        self.results = {name: read_result(self.runs / name) for name in names}
        self.to_do = self._missing()
        if self.table is not None:
            write_known(self.output_dir, self.table, self.known, self.plugin.dry_run)

    def _wanted(self) -> list[Wanted]:
        plugin, overrides = self.plugin, self.overrides
        if self.table is None:
            parts = [name for name in ("rows", "columns", "seeds") if getattr(plugin, name)]
            if parts:
                raise ValueError(f"{parts[0]}= is a part of a table: give +table=NAME as well")
            return of_product(overrides)
        given = [override for override in overrides if override.get_key_element() != "scale"]
        check_given(given)
        cells = self.table.cells(plugin.rows, plugin.columns, plugin.seeds)
        lines = [str(override.input_line) for override in given]
        return of_table(self.table.name, cells, lines, plugin.pretrain_overrides)

    def _pretrain(self, tried: set[str]) -> bool:
        """Does the pre-training runs that cells start from; returns whether there were any.

        Adds their commands to ``tried``, and leaves those out that are among them.
        """
        able = [one.wanted for one in self.known if one.problem is None]
        needs = dict.fromkeys(need for one in able for need in one.needs)
        commands = [need for need in needs if need.startswith(PRETRAIN) and need not in tried]
        tried.update(commands)
        for number, command in enumerate(commands, 1):
            self._say(f"pre-training {number} of {len(commands)}: {command}")
            code = pretrain(command, self._say)
            if code > 128 or code < 0:  # a signal, which was meant for all
                sys.exit(code if code > 0 else 128 - code)
            if code:
                self._say(f"it ended with exit code {code}; the cells that need it are left out")
        return bool(commands)

    def _named(self, wanted: Sequence[Wanted]) -> list[Known]:
        """Every cell with its run's name, or what it will have to do once it has one."""
        known = []
        bar = {"console": self.console, "disable": not self.console.is_terminal}
        for one in track(wanted, "naming the runs", transient=True, **bar):  # type: ignore[arg-type]
            try:
                if one.problem is not None:
                    known.append(Known(one, problem=one.problem))
                elif one.needs:
                    known.append(Known(one, load=self.names.load(one.overrides)))
                else:
                    known.append(Known(one, named=self.names.find(one.overrides)))
            except ValueError as error:
                known.append(Known(one, problem=str(error)))
        self.names.save()
        problems = [one.problem for one in known if one.problem is not None]
        if len(problems) == len(known):
            raise ValueError("\n".join(dict.fromkeys(problems)) or "there are no such cells")
        return known

    def _missing(self) -> dict[str, Known]:
        """The runs to do by their names, each with the first cell that wants it."""
        missing: dict[str, Known] = {}
        for one in self.known:
            if one.named is None:
                continue
            result = self.results[one.named.run_id]
            if result is None or (self.plugin.retry_failed and not is_finished(result)):
                missing.setdefault(one.named.run_id, one)
        return missing

    def _announce(self) -> None:
        """What is there, what is to be done and what it will cost."""
        finished = [result for result in self.results.values() if is_finished(result)]
        failed = len(self.results) - len(finished) - len(self.to_do)
        counts = {
            "finished": len(finished),
            "to do": len(self.to_do),
            "failed before (retry_failed=true tries again)": max(0, failed),
            "cells wait for something": sum(bool(one.wanted.needs) for one in self.known),
            "cells refused": len(self._refused),
        }
        told = [f"{number} {name}" for name, number in counts.items() if number]
        self._say(f"{self._name}: {len(self.known)} cells, {len(self.results)} runs: ", *told)
        for one in self._refused:
            if one.wanted.label not in self.told:
                self._say(f"refused {one.wanted.label}: {one.problem}")
                self.told.add(one.wanted.label)
        cost = estimate(
            [one.named for one in self.to_do.values() if one.named is not None],
            [result for result in finished if result is not None],
            self.table.cost if self.table is not None else None,
        )
        if self.to_do and cost is not None:
            self._say(f"{len(self.to_do)} runs will take {cost}")
        self._announce_pretraining()

    def _announce_pretraining(self) -> None:
        """The pre-training runs that come first and the cells after them, with their hours."""
        waiting = [one for one in self.known if one.wanted.pretraining and one.load is not None]
        first = {
            command: load for one in waiting for command, load in one.wanted.pretraining.items()
        }
        if not first:
            return
        how = "" if self.plugin.pretrain else " (pretrain=true does them)"
        cost = self.table.cost if self.table is not None else None
        for what, loads in (
            (f"{len(first)} pre-training runs come first{how}", list(first.values())),
            (f"{len(waiting)} cells wait for them", [one.load for one in waiting if one.load]),
        ):
            hours = None if cost is None else by_flops(loads, cost)
            self._say(what if hours is None else f"{what}: {hours}")

    def _conduct(self) -> None:
        plugin = self.plugin
        session = Session.begin(Path(plugin.config.hydra.sweep.dir))
        plugin.config.hydra.sweep.dir = str(session.directory)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=plugin.hydra_context,
            task_function=plugin.task_function,
            config=plugin.config,
        )
        jobs = [
            Job(one.wanted.label, (*one.wanted.overrides, *self._extra(one)), run_id)
            for run_id, one in self.to_do.items()
        ]
        display = SweepDisplay(self.console, len(self.results), len(self.results) - len(jobs))
        conductor = Conductor(
            jobs, launcher.launch, session, self.runs, display, plugin.max_batch_size
        )
        self.ended = conductor.conduct()
        self.signal_number = conductor.signal_number

    def _extra(self, one: Known) -> list[str]:
        """Overrides of a run that is one of many; none of them changes its numbers."""
        if self.table is None or one.wanted.cell is None:
            return ["run.progress=false"]
        names = {"row": one.wanted.cell.row, "group": f"{self.table.name}.{self.table.scale}"}
        return ["run.progress=false", *(f"++names.{key}={name}" for key, name in names.items())]

    def _conclude(self) -> int:
        """The last word, and the exit code."""
        refused = [one.wanted.label for one in self._refused]
        if refused:
            self._say(f"{len(refused)} cells refused: ", *refused)
        self._say_needs()
        statuses = Counter(map(self._status, self.results))
        self._say("", *(f"{number} {status}" for status, number in statuses.items()))
        if self.signal_number is not None or statuses["not done"]:
            self._say("stopped; the same command goes on from here")
            return 128 + (self.signal_number or 2)
        if statuses["finished"]:
            self._say(f"next: aaa table {self._shown}")
        if statuses["failed"]:
            return 1
        return USER_ERROR if refused or statuses["refused"] else 0

    def _say_needs(self) -> None:
        for need, number in Counter(n for k in self.known for n in k.wanted.needs).items():
            self._say(f"{number} cells need: {need}")

    def _status(self, run_id: str) -> str:
        if run_id in self.ended:
            status = self.ended[run_id].status
            return "finished" if status == "skipped" else status
        result = self.results[run_id]
        return "not done" if result is None or run_id in self.to_do else str(result["status"])

    @property
    def _refused(self) -> list[Known]:
        return [one for one in self.known if one.problem is not None]

    @property
    def _name(self) -> str:
        return "sweep" if self.table is None else f"{self.table.name} at scale {self.table.scale}"

    @property
    def _shown(self) -> str:
        """Arguments of ``aaa table``, as one types them."""
        if self.table is None:
            return shlex.quote(str(self.runs))
        words = [str(self.plugin.table), "--scale", self.table.scale]
        if self.output_dir != Path("outputs"):
            words += ["--output-dir", str(self.output_dir)]
        return shlex.join(words)

    def _say(self, beginning: str, *parts: str) -> None:
        self.console.print(beginning + ", ".join(parts), markup=False)
