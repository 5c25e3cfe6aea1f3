"""Loss curves of pre-training runs in one picture, a panel for each folder of runs.

    python scripts/plot_pretraining.py outputs/pretraining --out losses.png

Thin: each logged step; thick: its running mean; dots: held-out documents.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from aaa.experiments.result import is_finished, read_result

mpl.use("Agg")
from matplotlib import pyplot as plt

WINDOW = 0.06  # of a curve's points, for its running mean


def curve(directory: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with (directory / "metrics.csv").open(newline="") as file:
        rows = [
            (int(row[0]), float(row[2])) for row in list(csv.reader(file))[1:] if row[1] == name
        ]
    steps, values = zip(*rows, strict=True)
    return np.array(steps), np.array(values)


def running_mean(values: np.ndarray) -> np.ndarray:
    width = max(1, round(WINDOW * len(values)))
    weights = np.ones(width)
    counts = np.convolve(np.ones(len(values)), weights, "same")
    return np.convolve(values, weights, "same") / counts


def finished_runs(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Directories and results, by pattern."""
    found = ((directory, read_result(directory)) for directory in sorted(folder.iterdir()))
    runs = [(directory, result) for directory, result in found if result and is_finished(result)]
    return sorted(runs, key=lambda run: run[1]["pattern"])


def draw(folder: Path, axes: Any, colours: dict[str, str]) -> None:
    for directory, result in finished_runs(folder):
        colour = colours.setdefault(result["pattern"], f"C{len(colours)}")
        steps, losses = curve(directory, "train/loss")
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
    for folder, axes in zip(options.folders, panels[0], strict=True):
        draw(folder, axes, colours)
    figure.tight_layout()
    figure.savefig(options.out, dpi=130)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
