"""Steps from epochs, and the processes they count."""

from __future__ import annotations

from typing import Any

import pytest

from aaa.training.settings import TrainingSettings


def settings(**changes: Any) -> TrainingSettings:
    values: dict[str, Any] = {
        "learning_rate": 1e-3, "gate_learning_rate": 1e-2, "weight_decay": 0.0, "warmup": 0.0,
        "clip": 1.0, "batch_size": 8, "accumulate": 1, "devices": 1, "num_nodes": 1,
        "max_steps": None, "max_epochs": 3, "precision": "32-true",
        "gradient_checkpointing": False, "evaluations": 1,
    }  # fmt: skip
    values.update(changes)
    return TrainingSettings(**values)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 30),
        ({"max_epochs": 0.5}, 5),
        ({"accumulate": 4}, 9),  # three epochs of 3 steps: the last one of each is smaller
        ({"max_steps": 7}, 7),
        ({"max_epochs": 0.01}, 1),
    ],
)
def test_total_steps(changes: dict[str, Any], steps: int) -> None:
    assert settings(**changes).total_steps(num_examples=80) == steps


@pytest.mark.parametrize("num_examples", [33, 100, 4810, 4873])
def test_steps_are_the_same_however_they_are_divided(num_examples: int) -> None:
    divisions = [(32, 1, 1), (8, 4, 1), (8, 1, 4), (4, 2, 4)]
    lengths = {
        settings(batch_size=size, accumulate=accumulate, devices=devices).total_steps(num_examples)
        for size, accumulate, devices in divisions
    }
    assert lengths == {3 * -(-num_examples // 32)}


def test_world_size() -> None:
    assert settings(devices=4, num_nodes=2).world_size == 8


def test_numbers_are_not_truth_values() -> None:
    with pytest.raises(ValueError, match="learning_rate must be a number"):
        settings(learning_rate=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": [0.9]}, r"training.betas must be two numbers in \[0, 1\)"),
        ({"betas": 0.9}, r"training.betas must be two numbers in \[0, 1\), not 0.9"),
        ({"betas": [0.9, 1.0]}, r"training.betas must be two numbers in \[0, 1\)"),
        ({"eps": 0}, "training.eps must be above 0"),
        ({"clip": 0}, "training.clip must be above 0"),
        ({"schedule": "cosine"}, "training.schedule must be linear or rsqrt, not 'cosine'"),
        ({"schedule": "rsqrt"}, "training.warmup must be above 0 for schedule=rsqrt"),
        ({"decay": "none"}, "training.decay must be matrices or all"),
        ({"keep": "first"}, "training.keep must be last or best"),
    ],
)
def test_what_is_out_of_range_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_the_gradient_may_stay_unclipped() -> None:
    assert settings(clip=None).clip is None
