"""Real runs, a few seconds each: the demo's encoder on a handful of generated examples."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from aaa.experiments.configs import compose_config

DATA = ("task.num_train=48", "task.num_validation=30")  # of a demo task
SMALL = (
    "training.max_steps=6",
    "training.batch_size=8",
    "training.evaluations=2",
    "run.progress=false",
    "run.log_every=1",
)

# Training that comes apart at once.
WILD = ("training.learning_rate=1e30", "training.clip=1e18", "pattern=aaa")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}

Compose = Callable[..., DictConfig]


@pytest.fixture
def small_overrides(tmp_path: Path) -> list[str]:
    """Makes ``aaa finetune`` a matter of seconds, with a folder of its own."""
    return [*DATA, *SMALL, f"run.output_dir={tmp_path / 'outputs'}"]


@pytest.fixture
def compose(small_overrides: list[str]) -> Compose:
    """The config of a small run; overrides have the last word."""

    def make(*overrides: str) -> DictConfig:
        tasks = [override for override in overrides if override.startswith("task=")]
        generated = all(override.startswith("task=demo_") for override in tasks)
        shared = small_overrides if generated else small_overrides[len(DATA) :]
        return compose_config([*shared, *overrides])

    return make


def command(overrides: list[str]) -> list[str]:
    """``aaa finetune`` as a process of its own."""
    return [sys.executable, "-m", "aaa", "finetune", *overrides]
