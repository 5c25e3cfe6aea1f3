"""Pre-training runs, a few seconds each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from aaa.experiments.configs import compose_config
from aaa.experiments.run import run
from tests.experiments.figures import metrics_csv

SMALL = (
    "corpus.num_documents=200", "data.held_out=0.05", "training.max_steps=8",
    "training.batch_size=4", "training.evaluations=2", "run.progress=false", "run.log_every=1",
    "run.num_workers=1",
)  # fmt: skip

Make = Callable[..., DictConfig]


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    return [*SMALL, f"run.output_dir={tmp_path / 'outputs'}"]


@pytest.fixture
def compose(overrides: list[str]) -> Make:
    return lambda *further: compose_config([*overrides, *further], "pretrain")


@pytest.fixture
def compose_streaming(overrides: list[str]) -> Make:
    """Likewise, without the share that is held out: a stream has none."""
    rest = [override for override in overrides if not override.startswith("data.held_out=")]
    return lambda *further: compose_config([*rest, *further, "data.streaming=true"], "pretrain")


def losses(directory: Path) -> dict[int, str]:
    return {int(step): value for step, name, value in metrics_csv(directory)[1:]
            if name == "train/loss"}  # fmt: skip


def finished(config: DictConfig) -> tuple[Path, dict[str, Any]]:
    outcome = run(config)
    assert outcome.status == "finished", outcome.result
    assert outcome.result is not None
    return outcome.directory, outcome.result
