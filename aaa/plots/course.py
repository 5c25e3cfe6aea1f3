"""The course of a run: rho, rows and columns and score, over steps and over layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aaa.plots.splits import is_of_development, split_of
from aaa.training.metrics_file import Curve, read_metrics

AXES = {"row_share": "rows", "column_share": "columns"}
BLACK, GREY = "#000000", "#8c8c8c"
STYLES = {"row_share": ("-", "s", "#2d2f7f"), "column_share": ("--", "o", "#e08214")}
DASHES = (":", "-.", "--", (0, (6, 1)))
MOST_EVALUATIONS = len(DASHES) + 1  # that are drawn over layers: the last one and some before


@dataclass(frozen=True)
class Course:
    """A run's metrics.csv, each name's values by step, and its result.json."""

    curves: Mapping[str, Curve]
    result: Mapping[str, Any]

    def curve(self, name: str) -> Curve:
        """The values of one name by step; empty if it was not logged."""
        return self.curves.get(name, {})

    def layers(self, name: str) -> dict[int, list[float | None]]:
        """A quantity of the development set over layers, at each evaluation.

        The result's own figures are the last of them, unless they are a test split's.

        Args:
            name: ``rho``, ``row_share`` or ``column_share``.
        """
        of_layer = {
            int(found[1]): curve
            for key, curve in self.curves.items()
            if (found := re.fullmatch(rf"validation/{name}_layer_(\d+)", key))
        }
        num_layers = len(self.result["sparsity_per_layer"])
        steps = sorted({step for curve in of_layer.values() for step in curve})
        values = {
            step: [of_layer.get(layer, {}).get(step) for layer in range(num_layers)]
            for step in steps
        }
        final = self.result.get("sparsity_per_layer" if name == "rho" else name)
        if final is not None and is_of_development(self.result):
            values[self.result["steps"]] = list(final)
        return values

    def means(self, name: str) -> Curve:
        """The mean over those layers that have the quantity, at each evaluation."""
        found = {}
        for step, values in self.layers(name).items():
            there = [value for value in values if value is not None]
            if there:
                found[step] = sum(there) / len(there)
        return found


def read_course(directory: Path, result: Mapping[str, Any]) -> Course:
    """A run's course from its directory.

    Raises:
        ValueError: if there is no metrics.csv or it is none.
    """
    return Course(read_metrics(directory), result)


def course_figure(course: Course) -> Figure:
    """Above over steps: rho, rows and columns, score. Below over layers: rho, rows, columns."""
    result = course.result
    axes_names = [name for name in AXES if course.means(name)]
    num_columns = 1 + max(1, len(axes_names))
    figure = Figure(figsize=(4.4 * num_columns, 7.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(2, num_columns)
    above, below = list(grid[0]), list(grid[1])
    _rho_over_steps(above.pop(0), course)
    if len(axes_names) > 1:
        _axes_over_steps(above.pop(0), course, axes_names)
    _score_over_steps(above.pop(0), course)
    _over_layers(below.pop(0), course, "rho", "sparsity ρ")
    for name in axes_names:
        _over_layers(below.pop(0), course, name, f"{AXES[name]} open, % of a text's tokens")
    for axes in above + below:
        axes.set_axis_off()
    who = f"{result['task']} · {result['pattern']} · {result['model']} · seed {result['seed']}"
    figure.suptitle(
        f"{who}\n{result['headline']} {result['score']:.1f} at ρ {100 * result['sparsity']:.1f} %"
        f" on the {split_of(result)}",
        parse_math=False,
    )
    return figure


def layers_figure(course: Course) -> Figure:
    """ρ of every layer at every evaluation on the development set, as fields."""
    values = course.layers("rho")
    steps = sorted(values)
    num_layers = len(course.result["sparsity_per_layer"])
    rho = [[values[step][layer] for step in steps] for layer in range(num_layers)]
    figure = Figure(figsize=(2.2 + 0.7 * len(steps), 1.2 + 0.32 * len(rho)), layout="constrained")
    axes = figure.subplots()
    if not steps:  # no evaluation is in metrics.csv
        axes.set_axis_off()
        return figure
    shown = [[float("nan") if value is None else value for value in line] for line in rho]
    axes.imshow(shown, cmap="Greys", vmin=0, vmax=1.4, aspect="auto")  # letters stay readable
    for layer, line in enumerate(rho):
        for place, value in enumerate(line):
            if value is not None:
                text = f"{100 * value:.0f}"
                axes.text(place, layer, text, ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(steps)), [str(step) for step in steps], fontsize=8)
    axes.set_yticks(range(len(rho)), [str(layer) for layer in range(len(rho))], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title="ρ in percent", xlabel="step", ylabel="layer")
    _tidy(axes)
    return figure


def _rho_over_steps(axes: Axes, course: Course) -> None:
    _line(axes, course.curve("train/rho"), "training batch", color=GREY, linewidth=0.7)
    target = course.curve("train/target")
    _line(axes, target, "target", color=BLACK, linestyle=":", linewidth=1.5)
    result, found = course.result, dict(course.curve("validation/rho"))
    if is_of_development(result):
        found[result["steps"]] = result["sparsity"]
    else:
        _point(axes, result["steps"], result["sparsity"], split_of(result))
    _line(axes, found, "development set", color=BLACK, marker="o", markersize=4)
    axes.set(title="sparsity ρ over steps", xlabel="step", ylim=(-0.02, 1.02))
    axes.legend(frameon=False)
    _tidy(axes)


def _axes_over_steps(axes: Axes, course: Course, names: list[str]) -> None:
    for name in names:
        linestyle, marker, color = STYLES[name]
        percent = {step: 100 * value for step, value in course.means(name).items()}
        _line(axes, percent, AXES[name], linestyle=linestyle, marker=marker, color=color)
    axes.set(title="rows and columns open, mean over layers", xlabel="step")
    axes.set_ylabel("% of a text's tokens")
    _from_nothing(axes)
    _over_all_steps(axes, course)
    axes.legend(frameon=False)
    _tidy(axes)


def _score_over_steps(axes: Axes, course: Course) -> None:
    result = course.result
    headline = result["headline"]
    curve = course.curve(f"validation/{headline}")
    last = {result["steps"]: result["metrics"]["validation"][headline]}
    scores = {step: 100 * value for step, value in (curve | last).items()}
    _line(axes, scores, "", color=BLACK, marker="o", markersize=4)
    if not is_of_development(result):
        _point(axes, result["steps"], result["score"], split_of(result))
        axes.legend(frameon=False)
    axes.set(title=f"{headline} x 100 over steps, development set", xlabel="step")
    _over_all_steps(axes, course)
    _tidy(axes)


def _over_layers(axes: Axes, course: Course, name: str, title: str) -> None:
    """A line for each of a few evaluations, the later the darker; the last one with markers."""
    values = course.layers(name)
    if not values:
        axes.set_axis_off()
        return
    steps = _spread(sorted(values))
    scale = 1 if name == "rho" else 100
    for place, step in enumerate(steps):
        last = step == steps[-1]
        heights = [float("nan") if v is None else scale * v for v in values[step]]
        shade = 0.8 * (1 - (place + 1) / len(steps))
        axes.plot(
            range(len(heights)), heights, label=f"step {step}", color=(shade, shade, shade),
            linewidth=1.8 if last else 1.2, marker="o" if last else "",
            linestyle="-" if last else DASHES[place],
        )  # fmt: skip
    count = course.result.get(name.replace("share", "count"))
    there = [value for value in count or [] if value is not None]
    if name != "rho" and there:
        title += f"\nat the end {sum(there) / len(there):.1f} tokens a text and layer"
        title += "" if is_of_development(course.result) else f", {split_of(course.result)}"
    axes.set(title=title, xlabel="layer")
    axes.set_xticks(range(len(values[steps[-1]])))
    if name == "rho":
        axes.set_ylim(-0.02, 1.02)
    else:
        _from_nothing(axes)
    axes.legend(frameon=False)
    _tidy(axes)


def _line(axes: Axes, curve: Curve, label: str, **look: Any) -> None:
    if curve:
        steps = sorted(curve)
        axes.plot(steps, [curve[step] for step in steps], label=label, **look)


def _point(axes: Axes, step: int, value: float, label: str) -> None:
    """What was measured once, on texts that no curve is of."""
    axes.plot(
        [step], [value], label=label, linestyle="", marker="D", markersize=6,
        markerfacecolor="none", color=BLACK,
    )  # fmt: skip


def _spread(steps: list[int]) -> list[int]:
    """At most MOST_EVALUATIONS of them, evenly, the last always."""
    if len(steps) <= MOST_EVALUATIONS:
        return steps
    gap = (len(steps) - 1) / (MOST_EVALUATIONS - 1)
    return [steps[round(place * gap)] for place in range(MOST_EVALUATIONS)]


def _from_nothing(axes: Axes) -> None:
    """From 0 to somewhat above the highest point, with room for the markers at both ends."""
    highest = axes.get_ylim()[1]
    axes.set_ylim(-0.02 * highest, 1.05 * highest)


def _over_all_steps(axes: Axes, course: Course) -> None:
    """Beside ρ's, which begin with training: one evaluation would span a few steps."""
    last = course.result["steps"]
    axes.set_xlim(-0.05 * last, 1.05 * last)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize(10)
