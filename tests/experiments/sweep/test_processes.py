"""Sweeps as processes of their own: killed, two at once, under every launcher."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.sweep.conftest import TABLE, Said, endings, results, start

MakeTable = Callable[..., str]
JOBLIB = ("hydra/launcher=joblib_parallel", "hydra.launcher.n_jobs=2")
FIGURES = ("score", "metrics", "sparsity", "sparsity_per_layer", "steps")


def figures(outputs: Path) -> dict[str, Any]:
    """What a table shows, by run."""
    found = results(outputs)
    assert {result["status"] for result in found.values()} == {"finished"}
    return {run: {name: result[name] for name in FIGURES} for run, result in found.items()}


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits for a moment in a sweep's life."""
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_same_figures(
    table: MakeTable, sweep: Callable[..., Said], outputs: Path, tmp_path: Path
) -> None:
    """By SIGKILL, by Ctrl-C of a pool and all its processes, by SIGKILL again."""
    command = [f"+table={table()}", "columns=stsb", "rows=aaa", "training.max_steps=60"]
    code, said = sweep(*command)
    assert code == 0, said
    killed = tmp_path / "killed"
    command += ["run.checkpoint_every=5"]

    def checkpoints() -> set[int]:
        return {path.stat().st_mtime_ns for path in killed.glob("runs/*/last.ckpt")}

    for number, launcher in ((signal.SIGKILL, ()), (signal.SIGINT, JOBLIB), (signal.SIGKILL, ())):
        process = start(*command, *launcher, f"run.output_dir={killed}")
        before = checkpoints()
        until(lambda before=before: checkpoints() - before, process)  # type: ignore[misc]
        os.killpg(process.pid, number)
        said = process.communicate(timeout=60)[0]
        assert process.returncode in (-number, 128 + number), said
        assert checkpoints()
        if number == signal.SIGINT:
            assert "stopped; the same command goes on from here" in said
            assert endings(killed) == ["interrupted"]
    outputs.rename(tmp_path / "undisturbed")
    killed.rename(outputs)
    code, said = sweep(*command)
    assert code == 0, said
    assert figures(outputs) == figures(tmp_path / "undisturbed")
    [log] = outputs.glob("runs/*/run.log")
    assert log.read_text().count("resuming from") == 3


@pytest.mark.slow
def test_two_at_once_share_the_work(table: MakeTable, outputs: Path) -> None:
    command = [f"+table={table()}", f"run.output_dir={outputs}", "training.max_steps=20"]
    both = [start(*command), start(*command, *JOBLIB)]
    for process in both:
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
        assert "4 finished" in said
    assert len(list((outputs / "sweeps").iterdir())) == 2
    counts = Counter(endings(outputs))
    assert counts["finished"] == len(figures(outputs)) == 4  # each run once, by one of the two
    assert set(counts) <= {"finished", "busy", "skipped"}


LAUNCHERS = {
    "slurm_local": ["hydra.launcher.timeout_min=5"],
    "ray_cluster": ["hydra.launcher.ray.init.num_cpus=1"],
}
PLUGINS = {"slurm_local": "hydra_submitit_launcher", "ray_cluster": "hydra_ray_launcher"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_does_what_the_basic_one_does(
    launcher: str, table: MakeTable, outputs: Path
) -> None:
    plugin = PLUGINS[launcher]
    if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin} is not installed")
    process = start(
        f"+table={table()}", "columns=cola", "rows=fixed", f"run.output_dir={outputs}",
        f"hydra/launcher={launcher}", *LAUNCHERS[launcher],
    )  # fmt: skip
    said = process.communicate(timeout=180)[0]
    assert process.returncode == 0, said
    assert "[1/1] fixed · cola · seed 0: matthews" in said
    assert endings(outputs) == ["finished"]
    [result] = results(outputs).values()
    assert result["config"]["task"]["num_train"] == 48
    assert TABLE["scales"]["demo"]["overrides"][1] == "task.num_train=48"
