"""What a sweep will cost before it starts: from its own finished runs, or from FLOPs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from aaa.experiments.sweep.display import duration
from aaa.experiments.sweep.run_ids import Named

FLOPS_PER_WEIGHT = 6  # and token: 2 forward, 4 backward


def estimate(
    to_do: Sequence[Named], results: Sequence[Mapping[str, Any]], cost: Mapping[str, float] | None
) -> str | None:
    """The device hours of runs, and what they were reckoned from; None where nothing is known.

    Args:
        to_do: the runs.
        results: of finished runs; those of a like run have the first word.
        cost: of the table's scale: ``weights`` of the encoder, ``tokens`` a text, and
            ``teraflops`` a second that a device reaches.
    """
    recorded = [_recorded_seconds(run, results) for run in to_do]
    if to_do and all(seconds is not None for seconds in recorded):
        hours = sum(
            seconds * run.devices / 3600
            for run, seconds in zip(to_do, recorded, strict=True)
            if seconds is not None
        )
        return f"about {duration(3600 * hours)} of a device, by the finished runs of this sweep"
    if cost is None or any(run.steps is None for run in to_do):
        return None
    flops = sum(
        FLOPS_PER_WEIGHT * cost["weights"] * cost["tokens"] * run.batch * run.devices * run.steps
        for run in to_do
        if run.steps is not None
    )
    hours = flops / (cost["teraflops"] * 1e12) / 3600
    return (
        f"about {hours:.3g} GPU hours, by {FLOPS_PER_WEIGHT} FLOPs a weight and token at "
        f"{cost['teraflops']:g} TFLOP/s of each device (not measured)"
    )


def _recorded_seconds(run: Named, results: Sequence[Mapping[str, Any]]) -> float | None:
    """How long a run will take by those of its encoder, batch and devices."""
    like = [result for result in results if _is_like(run, result)]
    if not like:
        return None
    if run.steps is None:
        return statistics.fmean(result["wall_seconds"] for result in like)
    return run.steps * statistics.fmean(r["wall_seconds"] / r["steps"] for r in like)


def _is_like(run: Named, result: Mapping[str, Any]) -> bool:
    training = result["config"]["training"]
    return (
        result["model"] == run.model
        and result["hardware"]["processes"] == run.devices
        and training["batch_size"] * training["accumulate"] == run.batch
    )
