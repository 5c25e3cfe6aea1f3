"""The paper's search over alpha: which attempts are made, which is kept, and that none is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from aaa.experiments.arguments import model_folder, run_directory
from aaa.experiments.job import find_runs
from aaa.experiments.lock import is_being_run, run_lock
from aaa.experiments.plan import Plan, make_plan
from aaa.experiments.result import Outcome, Status, read_result
from aaa.experiments.run import run
from aaa.experiments.search import FACTOR, MAX_ATTEMPTS, search
from tests.experiments.conftest import Compose

SEARCH = ("sparsity.control=search", "sparsity.target=0.5", "sparsity.alpha=1")


class Attempts:
    """Stands in for training: rho and score as functions of schedule and alpha."""

    def __init__(self, figures: Callable[[str, float], tuple[float, float]]) -> None:
        self.figures = figures
        self.made: list[tuple[str, float]] = []

    def __call__(self, config: DictConfig) -> Outcome:
        objective = config.sparsity
        assert objective.control == "hinge"
        self.made.append((objective.alpha_schedule, objective.alpha))
        rho, score = self.figures(*self.made[-1])
        result: dict[str, Any] = {
            "status": "finished",
            "run_id": make_plan(config).run_id,
            "sparsity": rho,
            "sparsity_target": 0.5,
            "score": -score,  # of a test split, say, by which nothing is chosen
            "headline": "spearman",
            "metrics": {"validation": {"spearman": score}},
            "config": {"sparsity": dict(objective)},
        }
        return Outcome(Path("attempt"), "finished", result)


@pytest.fixture
def plan(compose: Compose) -> Plan:
    return make_plan(compose(*SEARCH))


def test_raises_alpha_until_the_target_is_met_and_keeps_the_best(plan: Plan) -> None:
    attempts = Attempts(
        lambda schedule, alpha: (0.1 * alpha, {"constant": 70.0, "linear": 80.0}[schedule])
    )
    outcome = search(plan, attempts)
    alphas = [1, FACTOR, FACTOR**2, FACTOR**3]  # rho is 0.8 at alpha 8
    assert attempts.made == [(s, a) for s in ("constant", "linear") for a in alphas]
    assert outcome.result is not None
    assert (outcome.result["score"], outcome.result["target_met"]) == (-80, True)
    assert outcome.result["best_run"] == outcome.result["attempts"][-1]["run_id"]
    assert len({attempt["run_id"] for attempt in outcome.result["attempts"]}) == 8
    assert read_result(plan.directory) == outcome.result


def test_a_higher_score_below_the_target_is_not_the_best(plan: Plan) -> None:
    attempts = Attempts(lambda schedule, alpha: (0.3, 90) if alpha < 4 else (0.498, 60))
    outcome = search(plan, attempts)
    assert outcome.result is not None
    assert (outcome.result["score"], outcome.result["sparsity"]) == (-60, 0.498)


def test_a_target_that_is_never_met_is_said(plan: Plan) -> None:
    attempts = Attempts(lambda schedule, alpha: (0.4 if schedule == "linear" else 0.3, 50))
    outcome = search(plan, attempts)
    assert len(attempts.made) == 2 * MAX_ATTEMPTS
    assert outcome.result is not None
    assert (outcome.result["target_met"], outcome.result["sparsity"]) == (False, 0.4)


@pytest.mark.parametrize("status", ["interrupted", "failed", "busy"])
def test_stops_where_an_attempt_stops(plan: Plan, status: Status) -> None:
    stopped = Outcome(Path("attempt"), status, signal_number=2)
    assert search(plan, lambda config: stopped) is stopped
    assert read_result(plan.directory) is None


def test_through_the_front_door_and_again(compose: Compose, tmp_path: Path) -> None:
    config = compose("pattern=aaa", "sparsity.control=search", "sparsity.target=0")
    outcome = run(config)
    assert outcome.status == "finished"
    assert outcome.result is not None
    for attempt in outcome.result["attempts"]:
        own = read_result(tmp_path / "outputs" / "runs" / attempt["run_id"])
        assert own is not None
        assert own["score"] == attempt["score"]
    assert run(config).status == "skipped"


def test_a_failure_is_the_searchs_own_too(plan: Plan, compose: Compose) -> None:
    attempts = Attempts(lambda schedule, alpha: (0.1, 50))

    def fail(config: DictConfig) -> Outcome:
        result = attempts(config).result
        assert result is not None
        return Outcome(Path("attempt"), "failed", result | {"status": "failed", "error": "no"})

    assert search(plan, fail).status == "failed"
    result = read_result(plan.directory)
    assert result is not None
    assert (result["status"], result["error"]) == ("failed", "no")
    assert result["run_id"] == plan.run_id
    assert result["config"]["sparsity"]["control"] == "search"


def test_its_model_is_that_of_the_best_attempt(compose: Compose) -> None:
    outcome = run(compose("pattern=aaa", "sparsity.control=search", "sparsity.target=0"))
    assert outcome.result is not None
    best = outcome.directory.with_name(outcome.result["best_run"])
    assert run_directory(str(outcome.directory)) == best
    assert (model_folder(best) / "config.json").exists()
    further = compose("pattern=aaa", f"model.path={outcome.directory.name}")
    find_runs(further)
    assert Path(further.model.path) == best


def test_another_process_waits_for_a_search(compose: Compose) -> None:
    config = compose("pattern=aaa", "sparsity.control=search", "sparsity.target=0")
    directory = make_plan(config).directory
    directory.mkdir(parents=True)
    with run_lock(directory):
        assert is_being_run(directory)
        assert run(config).status == "busy"
