"""What a sweep says: what there is to be done and what it costs, what is needed, what came out."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from rich.console import Console

from aaa.experiments.sweep.estimate import by_flops, estimate
from aaa.experiments.sweep.options import Options
from aaa.experiments.sweep.survey import Survey
from aaa.experiments.tables.spec import Table


class Teller:
    """Says it on a console, each refused cell once.

    Args:
        console: where.
        options: the sweep's.
        table: which it is of, None for a product of overrides.
        output_dir: where its runs lie.
    """

    def __init__(
        self, console: Console, options: Options, table: Table | None, output_dir: Path
    ) -> None:
        self.console, self.options = console, options
        self.table, self.output_dir = table, output_dir
        self._told: set[str] = set()  # labels of refused cells

    def say(self, beginning: str, *parts: str) -> None:
        """A line of its own, with what comes behind it after commas."""
        self.console.print(beginning + ", ".join(parts), markup=False)

    def announce(self, survey: Survey) -> None:
        """What is there, what is to be done and what it will cost."""
        failed = len(survey.results) - len(survey.finished) - len(survey.to_do)
        counts = {
            "finished": len(survey.finished),
            "to do": len(survey.to_do),
            "failed before (retry_failed=true tries again)": max(0, failed),
            "cells wait for something": sum(bool(one.wanted.needs) for one in survey.known),
            "cells refused": len(survey.refused),
        }
        told = [f"{number} {name}" for name, number in counts.items() if number]
        self.say(f"{self._name}: {len(survey.known)} cells, {len(survey.results)} runs: ", *told)
        for one in survey.refused:
            if one.wanted.label not in self._told:
                self.say(f"refused {one.wanted.label}: {one.problem}")
                self._told.add(one.wanted.label)
        cost = estimate(
            [one.named for one in survey.to_do.values() if one.named is not None],
            survey.finished,
            self.table.cost if self.table is not None else None,
        )
        if survey.to_do and cost is not None:
            self.say(f"{len(survey.to_do)} runs will take {cost}")
        self._announce_pretraining(survey)

    def _announce_pretraining(self, survey: Survey) -> None:
        """The pre-training runs that come first and the cells after them, with their hours."""
        first = {
            command: load
            for one in survey.waiting
            for command, load in one.wanted.pretraining.items()
        }
        if not first:
            return
        how = "" if self.options.pretrain else " (pretrain=true does them)"
        cost = self.table.cost if self.table is not None else None
        after = [one.load for one in survey.waiting if one.load]
        for what, loads in (
            (f"{len(first)} pre-training runs come first{how}", list(first.values())),
            (f"{len(survey.waiting)} cells wait for them", after),
        ):
            hours = None if cost is None else by_flops(loads, cost)
            self.say(what if hours is None else f"{what}: {hours}")

    def trial(self, survey: Survey) -> None:
        """What would be done."""
        for one in survey.to_do.values():
            self.say(f"would run {one.wanted.label}: {' '.join(one.wanted.overrides)}")
        self.needs(survey)

    def needs(self, survey: Survey) -> None:
        """What cells wait for."""
        for need, number in survey.needs.items():
            self.say(f"{number} cells need: {need}")

    def conclude(self, survey: Survey, statuses: Counter[str], is_stopped: bool) -> None:
        """The last word.

        Args:
            survey: the cells.
            statuses: how many runs ended how.
            is_stopped: whether there would be more to do.
        """
        refused = [one.wanted.label for one in survey.refused]
        if refused:
            self.say(f"{len(refused)} cells refused: ", *refused)
        self.needs(survey)
        self.say("", *(f"{number} {status}" for status, number in statuses.items()))
        if is_stopped:
            self.say("stopped; the same command goes on from here")
        elif statuses["finished"]:
            self.say(f"next: aaa table {self._shown}")

    @property
    def _name(self) -> str:
        return "sweep" if self.table is None else f"{self.table.name} at scale {self.table.scale}"

    @property
    def _shown(self) -> str:
        """Arguments of ``aaa table``, as one types them."""
        if self.table is None:
            return shlex.quote(str(self.output_dir / "runs"))
        words = [str(self.options.table), "--scale", self.table.scale]
        if self.output_dir != Path("outputs"):
            words += ["--output-dir", str(self.output_dir)]
        return shlex.join(words)
