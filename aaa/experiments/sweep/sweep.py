"""A sweep from its command line to its last word."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from aaa.experiments.login import check_login
from aaa.experiments.sweep.cells import Known
from aaa.experiments.sweep.conduct import Conductor, Job
from aaa.experiments.sweep.display import SweepDisplay, own_console
from aaa.experiments.sweep.options import Options, as_written
from aaa.experiments.sweep.pretrain import PRETRAIN, pretrain
from aaa.experiments.sweep.session import Ended, Session
from aaa.experiments.sweep.survey import Surveyor
from aaa.experiments.sweep.telling import Teller
from aaa.experiments.tables.spec import Table, load_table

DEFAULT_SCALE = "demo"
USER_ERROR = 2


@dataclass(frozen=True)
class Hydra:
    """What Hydra hands a sweeper, and a sweeper a launcher."""

    context: HydraContext
    task_function: TaskFunction
    config: DictConfig


def sweep(options: Mapping[str, Any], arguments: Sequence[str], hydra: Hydra) -> None:
    """Runs what a multirun asks for, says what came out, and exits unless all is well.

    Exit codes: 1 if a cell failed, 2 if one was refused, 128 + n if signal n stopped it. Cells
    that wait for a pre-training or an option are told, and no error.

    Args:
        options: the fields of ``Options``.
        arguments: the overrides of the command line.
        hydra: by which configs are composed and jobs launched.
    """
    try:
        code = Sweep(Options(**options), arguments, hydra).run()
    except ValueError as error:
        print(f"aaa: {error}", file=sys.stderr)
        code = USER_ERROR
    if code:
        sys.exit(code)


class Sweep:
    """One multirun; the arguments are those of ``sweep``.

    Raises:
        ValueError: if they make no sense, or not one of the cells can be run.
    """

    def __init__(self, options: Options, arguments: Sequence[str], hydra: Hydra) -> None:
        self.options, self.hydra = options, hydra
        self.console = own_console()
        output_dir = Path(str(hydra.config.run.output_dir))
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"run.output_dir cannot be made: {error}") from error
        self.runs = output_dir / "runs"
        loader = hydra.context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
        self.table: Table | None = None
        if options.table is not None:
            scales = [o.value() for o in overrides if o.get_key_element() == "scale"]
            self.table = load_table(options.table, str(scales[-1]) if scales else DEFAULT_SCALE)
        self.tell = Teller(self.console, options, self.table, output_dir)
        self.surveyor = Surveyor(
            options,
            self.table,
            overrides,
            lambda given: loader.load_sweep_config(hydra.config, list(given)),
            output_dir,
            self.console,
        )
        self.ended: dict[str, Ended] = {}
        self.signal_number: int | None = None
        self.survey = self.surveyor.look()

    def run(self) -> int:
        """Does what is missing; returns the exit code."""
        self.tell.announce(self.survey)
        if self.survey.to_do or self.options.pretrain:
            check_login(self.hydra.config.logger)
        if self.options.dry_run:
            self.tell.trial(self.survey)
            return USER_ERROR if self.survey.refused else 0
        tried: set[str] = set()
        # What adapts an encoder is known by name once that encoder is there.
        while self.options.pretrain and self._pretrain(tried):
            self.survey = self.surveyor.look()
        if tried:
            self.tell.announce(self.survey)
        if self.survey.to_do:
            self._conduct()
        return self._conclude()

    def _pretrain(self, tried: set[str]) -> bool:
        """Does the pre-training runs that cells start from; returns whether there were any.

        Adds their commands to ``tried``, and leaves those out that are among them.
        """
        able = [one.wanted for one in self.survey.known if one.problem is None]
        needs = dict.fromkeys(need for one in able for need in one.needs)
        commands = [need for need in needs if need.startswith(PRETRAIN) and need not in tried]
        tried.update(commands)
        for number, command in enumerate(commands, 1):
            self.tell.say(f"pre-training {number} of {len(commands)}: {command}")
            code = pretrain(command, self.tell.say)
            if code > 128 or code < 0:  # a signal, which was meant for all
                sys.exit(code if code > 0 else 128 - code)
            if code:
                said = f"it ended with exit code {code}; the cells that need it are left out"
                self.tell.say(said)
        return bool(commands)

    def _conduct(self) -> None:
        config = self.hydra.config
        session = Session.begin(Path(config.hydra.sweep.dir))
        config.hydra.sweep.dir = str(session.directory)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra.context,
            task_function=self.hydra.task_function,
            config=config,
        )
        jobs = [
            Job(one.wanted.label, (*one.wanted.overrides, *self._extra(one)), run_id)
            for run_id, one in self.survey.to_do.items()
        ]
        runs = len(self.survey.results)
        display = SweepDisplay(self.console, runs, runs - len(jobs))
        at_once = self.options.max_batch_size
        conductor = Conductor(jobs, launcher.launch, session, self.runs, display, at_once)
        self.ended = conductor.conduct()
        self.signal_number = conductor.signal_number

    def _extra(self, one: Known) -> list[str]:
        """Overrides of a run that is one of many; none of them changes its numbers."""
        if self.table is None or one.wanted.cell is None:
            return ["run.progress=false"]
        names = {"row": one.wanted.cell.row, "group": f"{self.table.name}.{self.table.scale}"}
        return [
            "run.progress=false",
            *(f"++names.{key}={as_written(name)}" for key, name in names.items()),
        ]

    def _conclude(self) -> int:
        """The last word, and the exit code."""
        statuses = Counter(map(self._status, self.survey.results))
        is_stopped = self.signal_number is not None or statuses["not done"] > 0
        self.tell.conclude(self.survey, statuses, is_stopped)
        if is_stopped:
            return 128 + (self.signal_number or 2)
        if statuses["failed"]:
            return 1
        return USER_ERROR if self.survey.refused or statuses["refused"] else 0

    def _status(self, run_id: str) -> str:
        if run_id in self.ended:
            status = self.ended[run_id].status
            return "finished" if status == "skipped" else status
        result = self.survey.results[run_id]
        return "not done" if result is None or run_id in self.survey.to_do else result["status"]
