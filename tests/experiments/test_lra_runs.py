"""Runs on long texts as bytes: a test split, the best weights kept, the protocols."""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from aaa import load_sparse
from aaa.data.batching import Collate
from aaa.experiments.plan import make_plan
from aaa.experiments.prepare import prepare
from aaa.experiments.result import MODEL
from aaa.experiments.run import run
from aaa.training.callbacks import KeepBest
from tests.data.test_glue import write_folder
from tests.experiments.conftest import Compose

TINY = ("model.hidden_size=16", "model.layers=2", "model.heads=2", "model.intermediate_size=16")


def reviews(number: int, rng: Random) -> dict[str, list[Any]]:
    labels = [index % 2 for index in range(number)]
    texts = ["".join(rng.choices("ab" if label else "bc", k=30)) for label in labels]
    return {"text": texts, "label": labels}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = Random(0)
    splits = {"train": reviews(90, rng), "test": reviews(20, rng)}
    return write_folder(tmp_path / "imdb", {"plain_text": splits})


def logged(directory: Path, name: str) -> dict[int, float]:
    with (directory / "metrics.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        return {int(row["step"]): float(row["value"]) for row in rows if row["name"] == name}


def test_the_best_weights_are_kept_and_tested_once(compose: Compose, folder: Path) -> None:
    config = compose(
        "task=imdb", "model=lra", f"data.path={folder}", "task.held_out=30",
        "data.max_length=25", "pattern=local2_global1", "training.max_steps=12",
        "training.evaluations=6", "training.learning_rate=0.05", "training.keep=best", *TINY,
    )  # fmt: skip
    outcome = run(config)
    result, directory = outcome.result, outcome.directory
    assert result is not None
    assert outcome.status == "finished", result
    assert result["split"] == "test"
    assert result["score"] == 100 * result["metrics"]["test"]["accuracy"]
    assert list(logged(directory, "test/accuracy")) == [12]
    evaluations = logged(directory, "validation/accuracy")
    best = result["metrics"]["validation"]["accuracy"]
    assert result["kept_step"] < 12, "take another rate: the last step was the best"
    assert best == max(evaluations.values())
    assert 0 <= result["data_wait_share"] < 1
    assert not (directory / "best.ckpt").exists()

    model = load_sparse(directory / MODEL)
    prepared = prepare(make_plan(config))
    batch = Collate(prepared.tokenizer, False)(list(prepared.splits["test"]))
    labels = batch.pop("labels")
    with torch.no_grad():
        accuracy = (model(**batch).logits.argmax(-1) == labels).float().mean()
    assert float(accuracy) == pytest.approx(result["metrics"]["test"]["accuracy"])


def test_an_interrupted_run_remembers_its_best(tmp_path: Path) -> None:
    first = KeepBest(tmp_path / "best.ckpt", "accuracy", from_step=3)
    first.score, first.step = 0.7, 5
    again = KeepBest(tmp_path / "best.ckpt", "accuracy", from_step=3)
    again.load_state_dict(first.state_dict())
    assert (again.score, again.step) == (0.7, 5)


def test_learned_patterns_keep_what_has_settled(compose: Compose) -> None:
    """Before, rho is on its way to the target, and scores are better for it."""
    result = run(
        compose("training.keep=best", "training.evaluations=6", "sparsity.noise_end=1")
    ).result
    assert result is not None
    assert result["kept_step"] == 6
