"""A table of one's own with runs of a second each, and the command that sweeps over it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from aaa import cli

TABLE: dict[str, Any] = {
    "title": "Fixed and learned",
    "columns": {
        "stsb": {"overrides": ["task=demo_similarity"]},
        "cola": {"overrides": ["task=demo_acceptability"]},
    },
    "rows": {
        "fixed": {"overrides": ["pattern=local2_global2"]},
        "aaa": {"overrides": ["pattern=aaa"], "compare": "fixed", "target": "match"},
    },
    "scales": {
        "demo": {
            "overrides": [
                "scale=demo", "task.num_train=48", "task.num_validation=30",
                "training.max_steps=3", "training.batch_size=8", "training.evaluations=1",
            ]
        }
    },
}  # fmt: skip

# What a sweep's last word is: the exit code, and all that was said.
Said = tuple[int, str]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    """Writes ``mine.yaml``, with changes to the table, and returns its path."""

    def make(**changes: Any) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(TABLE | changes, sort_keys=False))
        return str(path)

    return make


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def sweep(
    outputs: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Runs ``aaa finetune -m`` in this process."""
    monkeypatch.setattr(sys, "argv", ["aaa"])

    def run(*arguments: str) -> Said:
        code = 0
        try:
            cli.finetune(["-m", *arguments, f"run.output_dir={outputs}"])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return run


def start(*arguments: str, threads: int = 1) -> subprocess.Popen[str]:
    """``aaa finetune -m`` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "aaa", "finetune", "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


def results(outputs: Path) -> dict[str, dict[str, Any]]:
    """The results of all runs, by run id."""
    found = sorted((outputs / "runs").glob("*/result.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def endings(outputs: Path) -> list[str]:
    """How all jobs of all sweeps ended."""
    found = (outputs / "sweeps").glob("*/[0-9]*.json")
    return [json.loads(path.read_text())["status"] for path in found]
