"""One small run for all pictures of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from aaa.experiments.configs import compose_config
from aaa.experiments.run import run
from tests.experiments.conftest import DATA, SMALL


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run under aaa that ended after six steps."""
    place = f"run.output_dir={tmp_path_factory.mktemp('outputs')}"
    # So few steps are enough for gates to close where they learn at that rate.
    rates = ("training.gate_learning_rate=0.5", "sparsity.ramp_start=0", "sparsity.ramp_end=0.1")
    outcome = run(compose_config([*DATA, *SMALL, *rates, place]))
    assert outcome.status == "finished", outcome.result
    return outcome.directory
