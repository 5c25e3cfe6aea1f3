"""The sweeper as Hydra wants it: a class in this namespace. Hydra imports it at every start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class CellSweeper(Sweeper):
    """Runs the cells of a table, or the product of what has several values on the command line.

    Args:
        table: a table's name or yaml (``aaa.experiments.tables.spec``); None for a product.
        rows, columns, seeds: the part of the table that is wanted; None for all.
        pretrain: whether missing pre-training runs that cells start from are done first.
        pretrain_overrides: of those runs, with the last word.
        retry_failed: whether cells that failed before are tried again.
        dry_run: whether to say what would be done and stop.
        max_batch_size: how many cells a launcher is given at once; None for all.
    """

    def __init__(
        self,
        table: str | None,
        rows: Sequence[str] | None,
        columns: Sequence[str] | None,
        seeds: Sequence[int] | None,
        pretrain: bool,
        pretrain_overrides: Sequence[str],
        retry_failed: bool,
        dry_run: bool,
        max_batch_size: int | None,
    ) -> None:
        self.table, self.rows, self.columns, self.seeds = table, rows, columns, seeds
        self.pretrain, self.pretrain_overrides = pretrain, pretrain_overrides
        self.retry_failed, self.dry_run = retry_failed, dry_run
        self.max_batch_size = max_batch_size
        self.hydra_context: HydraContext
        self.task_function: TaskFunction
        self.config: DictConfig

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Hands over what Hydra has made so far; the launcher is made when there is work."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the cells and ends the process with their exit code, unless that is 0."""
        from aaa.experiments.sweep.sweep import sweep

        sweep(self, arguments)
