"""The sweeper as Hydra wants it: a class in this namespace. Hydra imports it at every start."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class CellSweeper(Sweeper):
    """Runs the cells of a table, or the product of what has several values on the command line.

    Args:
        options: those of ``aaa.experiments.sweep.options.Options``.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
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
        from aaa.experiments.sweep.sweep import Hydra, sweep

        sweep(self.options, arguments, Hydra(self.hydra_context, self.task_function, self.config))
