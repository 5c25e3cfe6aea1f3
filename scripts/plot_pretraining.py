"""Loss curves of pre-training runs in one picture, a panel for each folder of runs.

    python scripts/plot_pretraining.py outputs/pretraining --out losses.png

Thin: each logged step; thick: its running mean; dots: held-out documents.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from aaa.experiments.result import RESULT, is_finished, read_result, with_model
from aaa.training.metrics_file import METRICS, read_metrics

mpl.use("Agg")
from matplotlib import pyplot as plt

WINDOW = 0.06  # of a curve's points, for its running mean


def curve(directory: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, both empty where the run has none."""
    found = read_metrics(directory, [name]).get(name, {})
    return np.array(list(found), dtype=int), np.array(list(found.values()), dtype=float)


def running_mean(values: np.ndarray) -> np.ndarray:
    width = max(1, round(WINDOW * len(values)))
    weights = np.ones(width)
    counts = np.convolve(np.ones(len(values)), weights, "same")
    return np.convolve(values, weights, "same") / counts


def finished_runs(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Directories of metrics and results, by pattern: a search's is that of its best attempt.

    Raises:
        ValueError: if there is no such folder, or no finished run in it.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give one of runs, as outputs/pretraining")
    runs: dict[Path, dict[str, Any]] = {}
    for directory in filter(Path.is_dir, sorted(folder.iterdir())):
        result = read_result(directory)
        if result is not None and is_finished(result):
            runs[with_model(directory)] = result
    if not runs:
        raise ValueError(f"{folder} holds no finished run (a directory with a {RESULT})")
    return sorted(runs.items(), key=lambda run: str(run[1]["pattern"]))


def draw(folder: Path, axes: Any, colours: dict[str, str]) -> None:
    for directory, result in finished_runs(folder):
        colour = colours.setdefault(result["pattern"], f"C{len(colours)}")
        steps, losses = curve(directory, "train/loss")
        if not len(steps):
            raise ValueError(f"{directory} has no train/loss in its {METRICS}; use logger=csv")
        axes.plot(steps, losses, colour, alpha=0.15, linewidth=0.6)
        label = f"{result['pattern']}, ρ {100 * result['sparsity']:.0f} %"
        axes.plot(steps, running_mean(losses), colour, linewidth=1.4, label=label)
        axes.plot(*curve(directory, "validation/loss"), "o", color=colour, markersize=4)
        axes.set_title(result["task"])
    axes.set(xlabel="step", ylabel="loss of hidden tokens, nats")
    axes.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    count = len(options.folders)
    figure, panels = plt.subplots(1, count, figsize=(6 * count, 4), squeeze=False)
    colours: dict[str, str] = {}
    try:
        for folder, axes in zip(options.folders, panels[0], strict=True):
            draw(folder, axes, colours)
    except ValueError as error:
        parser.error(str(error))
    figure.tight_layout()
    figure.savefig(options.out, dpi=130)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
