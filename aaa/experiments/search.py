"""The paper's way to a target: runs under the hinge, alpha raised until rho is met; the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from aaa.control import AlphaSchedule
from aaa.experiments.job import Job
from aaa.experiments.result import BEST_RUN, Outcome, is_finished, write_result

log = logging.getLogger(__name__)

FACTOR = 2.0  # by which alpha is raised
MAX_ATTEMPTS = 8  # of each schedule; alpha is then 128 times what it was
TOLERANCE = 0.005  # the paper states whole percents


def search(plan: Job, run: Callable[[DictConfig], Outcome]) -> Outcome:
    """Section 4.1: "We pick the best variant of alpha among the two [a constant, an increasing
    linear value] and gradually increase its absolute value until the target sparsity has been
    reached." Here both are raised until it is, and the best run is kept (ours).

    Every attempt is a run of its own, in its own directory: finished ones are skipped and
    interrupted ones resumed when the search is started again. The target counts as met from half
    a percent below it on. The search's result is that of its best attempt, the best on the
    development set among those that met the target (the highest rho if none did: ``target_met``
    is then false), with the list of all ``attempts``.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(plan.config, plan.directory / "config.yaml", resolve=True)
    tried: list[dict[str, Any]] = []
    for schedule in get_args(AlphaSchedule):
        for attempt in _attempts(plan, schedule):
            outcome = run(attempt)
            if outcome.result is None or not is_finished(outcome.result):
                if outcome.status == "failed" and outcome.result is not None:
                    write_result(plan.directory, _as_own(plan, outcome.result))
                return outcome
            tried.append(outcome.result)
            if _is_met(outcome.result):
                break
    met = [result for result in tried if _is_met(result)]
    if met:
        best = max(met, key=_on_development)
    else:
        best = max(tried, key=lambda result: result["sparsity"])
        log.warning("%s: no attempt met the target; see the attempts' results", plan.title)
    result = _as_own(plan, best) | {
        BEST_RUN: best["run_id"],
        "target_met": bool(met),
        "attempts": [_summary(result) for result in tried],
    }
    write_result(plan.directory, result)
    return Outcome(plan.directory, "finished", result)


def _as_own(plan: Job, result: dict[str, Any]) -> dict[str, Any]:
    """An attempt's result under the name of the search."""
    return result | {
        "run_id": plan.run_id,
        "cell_id": plan.cell_id,
        "config": OmegaConf.to_container(plan.config, resolve=True),
    }


def _attempts(plan: Job, schedule: str) -> Iterator[DictConfig]:
    assert plan.control is not None
    for raised in range(MAX_ATTEMPTS):
        config = plan.config.copy()
        OmegaConf.update(config, "sparsity.control", "hinge")
        OmegaConf.update(config, "sparsity.alpha_schedule", schedule)
        OmegaConf.update(config, "sparsity.alpha", plan.control.strength * FACTOR**raised)
        yield config


def _is_met(result: dict[str, Any]) -> bool:
    return result["sparsity"] >= result["sparsity_target"] - TOLERANCE


def _on_development(result: dict[str, Any]) -> float:
    """The headline metric of the development set; ``score`` may be that of a test split."""
    return result["metrics"]["validation"][result["headline"]]


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    objective = result["config"]["sparsity"]
    return {
        "run_id": result["run_id"],
        "alpha": objective["alpha"],
        "alpha_schedule": objective["alpha_schedule"],
        "sparsity": result["sparsity"],
        "score": result["score"],
    }
