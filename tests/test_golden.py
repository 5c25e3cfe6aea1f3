"""Twenty steps of each pattern give the losses written down: a change of numerics is seen.

    python -m tests.test_golden

writes them anew, after a change that is meant to change them (say so in the commit).
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pytest
import torch

from aaa.experiments.configs import compose_config
from aaa.experiments.run import run
from aaa.places import config_folder
from tests.needs import overrides_for

GOLDEN = Path(__file__).parent / "golden"
PATTERNS = sorted(path.stem for path in (config_folder() / "pattern").glob("*.yaml"))
# Processors differ in the last bits, and twenty steps let them grow; any real change is larger. A
# larger eps than usual keeps Adam from making whole steps of gradients that are but rounding.
TOLERANCE = 1e-3


def losses(pattern: str, folder: Path) -> list[float]:
    torch.set_num_threads(1)
    overrides = [
        f"pattern={pattern}", "task=demo_paraphrase", "task.num_train=200",
        "task.num_validation=20", "training.max_steps=20", "training.batch_size=8",
        "training.evaluations=1", "training.eps=1e-4",
        "sparsity.target=0.5", "sparsity.ramp_start=0", "sparsity.ramp_end=0.5",
        "sparsity.alpha=10", "sparsity.margin=0",
        "sparsity.noise_start=1", "sparsity.noise_end=1",
        "sparsity.alpha_schedule=constant", "run.log_every=1", "run.progress=false",
        "run.accelerator=cpu", f"run.output_dir={folder}", *overrides_for(pattern, folder),
    ]  # fmt: skip
    with (run(compose_config(overrides)).directory / "metrics.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "train/loss"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_losses(pattern: str, tmp_path: Path) -> None:
    written = [float(line) for line in (GOLDEN / f"{pattern}.txt").read_text().split()]
    assert len(written) == 20
    assert losses(pattern, tmp_path) == pytest.approx(written, rel=TOLERANCE)


def test_patterns_differ() -> None:
    """Otherwise the golden losses could not tell one pattern from another."""
    texts = {(GOLDEN / f"{pattern}.txt").read_text() for pattern in PATTERNS}
    assert len(texts) == len(PATTERNS)


def write_golden() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for pattern in PATTERNS:
        with tempfile.TemporaryDirectory() as folder:
            lines = [f"{loss:.9g}\n" for loss in losses(pattern, Path(folder))]
        (GOLDEN / f"{pattern}.txt").write_text("".join(lines))
        print(f"{pattern}: {lines[0].strip()} -> {lines[-1].strip()}")


if __name__ == "__main__":
    write_golden()
