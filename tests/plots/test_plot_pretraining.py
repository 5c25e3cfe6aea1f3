"""scripts/plot_pretraining.py: which runs it draws, and what it says where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.fakes import write_run

SCRIPT = Path(__file__).parents[2] / "scripts" / "plot_pretraining.py"
METRICS = [
    *((step, "train/loss", 5 - 0.1 * step) for step in range(20)),
    (10, "validation/loss", 4.0),
]


def plot(folder: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), "--out", str(output)]
    return subprocess.run(command, capture_output=True, text=True)


def test_searches_and_files_beside_the_runs(tmp_path: Path) -> None:
    """A search has no metrics of its own, but its best attempt's; finetuning has no loss there."""
    write_run(tmp_path, "attempt", METRICS)
    search = write_run(tmp_path, "a_search", best_run="attempt")
    (search / "metrics.csv").unlink()
    write_run(tmp_path, "finetuned", METRICS[:20], pattern="aaa")
    write_run(tmp_path, "failed", status="failed", error="no")
    (tmp_path / "runs" / "notes.txt").write_text("of the runs")
    done = plot(tmp_path / "runs", tmp_path / "losses.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "losses.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("nowhere", "there is no folder"),
        ("empty", "holds no finished run"),
        ("runs", "has no train/loss in its metrics.csv"),
    ],
)
def test_nothing_to_draw_is_said(folder: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_run(tmp_path, "run")
    done = plot(tmp_path / folder, tmp_path / "losses.png")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
