"""What a sweep is told on the command line, in Hydra's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from aaa.numbers import check_bool

LISTS = ("rows", "columns", "seeds")
SWITCHES = ("retry_failed", "dry_run", "pretrain")
OPTIONS = ("table", *LISTS, *SWITCHES)
OF_PRETRAINING = "pretrain."  # before an override of the pre-training runs that cells start from
MULTIRUN = ("-m", "--multirun")


@dataclass(frozen=True)
class Options:
    """The values of ``hydra.sweeper``.

    Args:
        table: a table's name or yaml (``aaa.experiments.tables.spec``); None for a product.
        rows, columns, seeds: the part of the table that is wanted; None for all.
        pretrain: whether missing pre-training runs that cells start from are done first.
        pretrain_overrides: of those runs, with the last word.
        retry_failed: whether cells that failed before are tried again.
        dry_run: whether to say what would be done and stop.
        max_batch_size: how many cells a launcher is given at once; None for all.

    Raises:
        ValueError: for a switch that is neither true nor false, or a part of no table.
    """

    table: str | None
    rows: Sequence[str] | None
    columns: Sequence[str] | None
    seeds: Sequence[int] | None
    pretrain: bool
    pretrain_overrides: Sequence[str]
    retry_failed: bool
    dry_run: bool
    max_batch_size: int | None

    def __post_init__(self) -> None:
        for switch in SWITCHES:  # Hydra makes a text of a mistyped one, which would be true
            check_bool(switch, getattr(self, switch))
        parts = [name for name in LISTS if getattr(self, name)]
        if self.table is None and parts:
            raise ValueError(f"{parts[0]}= is a part of a table: give +table=NAME as well")


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether these arguments ask for many runs."""
    return any(argument in MULTIRUN for argument in arguments)


def for_sweeper(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``table=``, ``rows=``, ... as values of ``hydra.sweeper``.

    ``pretrain.data.path=FOLDER`` and the like are for the pre-training runs that cells start from.

    Raises:
        ValueError: if there are such but no ``-m``.
    """
    of_pretraining = [a for a in arguments if a.startswith(OF_PRETRAINING)]
    translated = [_translated(a) for a in arguments if a not in of_pretraining]
    if of_pretraining:
        values = ",".join(quoted(a.removeprefix(OF_PRETRAINING)) for a in of_pretraining)
        translated.append(f"hydra.sweeper.pretrain_overrides=[{values}]")
    if translated != list(arguments) and not is_sweep(arguments):
        [first, *_] = set(arguments) - set(translated)
        raise ValueError(f"{first} is for many runs: aaa finetune -m {' '.join(arguments)}")
    return translated


def _translated(argument: str) -> str:
    name, equals, value = argument.lstrip("+").partition("=")
    if not equals or name not in OPTIONS:
        return argument
    if name in LISTS:
        value = f"[{value.strip('[]')}]"
    elif name == "table":
        value = quoted(value)
    return f"hydra.sweeper.{name}={value}"


def as_written(value: str) -> str:
    """A value of an override, quoted where Hydra's grammar wants it."""
    return value if re.fullmatch(r"[\w./-]+", value, re.ASCII) else quoted(value)


def quoted(value: str) -> str:
    """A value of an override as Hydra's grammar wants a text with any characters in it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
