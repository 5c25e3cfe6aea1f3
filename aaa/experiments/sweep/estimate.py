"""What a sweep will cost before it starts: from its own finished runs, or from FLOPs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aaa.experiments.sweep.display import duration
from aaa.experiments.tables.cells import Cost

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aaa.training.settings import TrainingSettings

FLOPS_PER_WEIGHT = 6  # and token: 2 forward, 4 backward


@dataclass(frozen=True)
class Load:
    """What a run has to do.

    Args:
        steps: optimiser steps, None where they follow from epochs.
        batch: texts a step and device.
        devices: processes that work on it.
        tokens: a text; None for the mean of its table.
    """

    model: str
    steps: int | None
    batch: int
    devices: int
    tokens: int | None = None


def load_of(config: DictConfig, settings: TrainingSettings) -> dict[str, Any]:
    """The fields of a run's ``Load``, but for its tokens."""
    return {
        "model": str(config.names.model),
        "steps": settings.max_steps,
        "batch": settings.batch_size * settings.accumulate,
        "devices": settings.world_size,
    }


def estimate(
    to_do: Sequence[Load], results: Sequence[Mapping[str, Any]], cost: Cost | None
) -> str | None:
    """The device hours of runs, and what they were reckoned from; None where nothing is known.

    Args:
        to_do: the runs.
        results: of finished runs; those of a like run have the first word.
        cost: of the table's scale.
    """
    recorded = [_recorded_seconds(run, results) for run in to_do]
    if to_do and all(seconds is not None for seconds in recorded):
        hours = sum(
            seconds * run.devices / 3600
            for run, seconds in zip(to_do, recorded, strict=True)
            if seconds is not None
        )
        return f"about {duration(3600 * hours)} of a device, by the finished runs of this sweep"
    return None if cost is None else by_flops(to_do, cost)


def by_flops(to_do: Sequence[Load], cost: Cost) -> str | None:
    """The device hours of runs by what they compute; None where a run's is not known."""
    flops = 0.0
    for run in to_do:
        weights = cost.weights_of(run.model)
        if weights is None or run.steps is None:
            return None
        tokens = (run.tokens or cost.tokens) * run.batch * run.devices * run.steps
        flops += FLOPS_PER_WEIGHT * weights * tokens
    hours = flops / (cost.teraflops * 1e12) / 3600
    return (
        f"about {f'{hours:,.0f}' if hours >= 100 else f'{hours:.3g}'} GPU hours, by "
        f"{FLOPS_PER_WEIGHT} FLOPs a weight and token at {cost.teraflops:g} TFLOP/s of each "
        "device (not measured)"
    )


def _recorded_seconds(run: Load, results: Sequence[Mapping[str, Any]]) -> float | None:
    """How long a run will take by those of its encoder, batch and devices."""
    like = [result for result in results if _is_like(run, result)]
    if not like:
        return None
    if run.steps is None:
        return statistics.fmean(result["wall_seconds"] for result in like)
    return run.steps * statistics.fmean(r["wall_seconds"] / r["steps"] for r in like)


def _is_like(run: Load, result: Mapping[str, Any]) -> bool:
    training = result["config"]["training"]
    return (
        result["model"] == run.model
        and result["hardware"]["processes"] == run.devices
        and training["batch_size"] * training["accumulate"] == run.batch
    )
