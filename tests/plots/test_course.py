"""The curves drawn are those of metrics.csv and result.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from aaa.experiments.result import read_result
from aaa.plots.course import Course, course_figure, layers_figure, read_course

RESULT: dict[str, Any] = {
    "task": "rte", "pattern": "aaa", "model": "tiny", "seed": 0, "headline": "accuracy",
    "score": 61.0, "sparsity": 0.6, "sparsity_per_layer": [0.5, 0.7], "steps": 30,
    "row_share": [0.2, None], "row_count": [3.0, None],
    "column_share": [0.1, 0.3], "column_count": [1.5, 4.5],
    # The score is that of a test split: no point of a curve over the development set.
    "metrics": {"validation": {"accuracy": 0.62}, "test": {"accuracy": 0.61}},
}  # fmt: skip
CURVES = {
    "train/rho": {0: 0.0, 9: 0.1, 29: 0.6},
    "train/target": {0: 0.0, 29: 0.7},
    "validation/accuracy": {10: 0.5, 20: 0.6},
    "validation/rho": {10: 0.2, 20: 0.4},
    "validation/rho_layer_0": {10: 0.1, 20: 0.3},
    "validation/rho_layer_1": {10: 0.3, 20: 0.5},
    "validation/row_share_layer_0": {10: 0.8, 20: 0.4},
    "validation/column_share_layer_0": {10: 0.9, 20: 0.5},
    "validation/column_share_layer_1": {10: 0.7, 20: 0.1},
}


def lines(figure: Figure, title: str) -> dict[str, tuple[list[float], list[float]]]:
    [axes] = [axes for axes in figure.axes if axes.get_title().startswith(title)]
    return {
        str(line.get_label()): (
            np.asarray(line.get_xdata()).tolist(),
            np.asarray(line.get_ydata()).tolist(),
        )
        for line in axes.lines
    }


def test_over_steps_and_over_layers() -> None:
    figure = course_figure(Course(CURVES, RESULT))
    rho = lines(figure, "sparsity ρ over steps")
    assert rho["training batch"] == ([0, 9, 29], [0.0, 0.1, 0.6])
    assert rho["target"] == ([0, 29], [0.0, 0.7])
    assert rho["development set"] == ([10, 20, 30], [0.2, 0.4, 0.6])
    shares = lines(figure, "rows and columns")
    assert shares["rows"][1] == pytest.approx([80, 40, 20])
    assert shares["columns"][1] == pytest.approx([80, 30, 20])
    [(steps, scores)] = lines(figure, "accuracy x 100").values()
    assert (steps, scores) == ([10, 20, 30], [50, 60, 62])
    layers = lines(figure, "rows open")
    assert list(layers) == ["step 10", "step 20", "step 30"]
    assert layers["step 30"][1][0] == pytest.approx(20)
    assert layers["step 30"][1][1] != layers["step 30"][1][1]  # no rows in that layer
    columns = lines(figure, "columns open")
    assert columns["step 20"] == ([0, 1], pytest.approx([50, 10]))
    titles = [axes.get_title() for axes in figure.axes]
    assert any("at the end 3.0 tokens a text and layer" in title for title in titles)


def test_figures_of_a_test_split_are_points_of_their_own() -> None:
    course = Course(CURVES, RESULT | {"split": "test"})
    figure = course_figure(course)
    rho = lines(figure, "sparsity ρ over steps")
    assert rho["development set"] == ([10, 20], [0.2, 0.4])
    assert rho["test split"] == ([30], [0.6])
    scores = lines(figure, "accuracy x 100")
    assert scores.pop("test split") == ([30], [61.0])
    assert [y for _, y in scores.values()] == [[50, 60, 62]]
    assert lines(figure, "rows and columns")["columns"][0] == [10, 20]
    assert list(course.layers("rho")) == list(course.layers("row_share")) == [10, 20]
    assert list(lines(figure, "columns open")) == ["step 10", "step 20"]
    titles = "\n".join(axes.get_title() for axes in figure.axes)
    assert "at the end 3.0 tokens a text and layer, test split" in titles
    assert figure.get_suptitle().endswith("accuracy 61.0 at ρ 60.0 % on the test split")
    development = course_figure(Course(CURVES, RESULT | {"split": "validation"}))
    assert development.get_suptitle().endswith("at ρ 60.0 % on the development set")


def test_a_test_split_alone_leaves_panels_empty() -> None:
    course = Course({"train/rho": {0: 0.0}}, RESULT | {"split": "test"})
    assert lines(course_figure(course), "sparsity ρ over steps")["test split"] == ([30], [0.6])
    assert not layers_figure(course).axes[0].axison


def test_fixed_patterns_have_no_rows_and_columns() -> None:
    result = {key: v for key, v in RESULT.items() if "row" not in key and "column" not in key}
    curves = {name: curve for name, curve in CURVES.items() if "share" not in name}
    figure = course_figure(Course(curves, result))
    drawn = [axes.get_title() for axes in figure.axes if axes.axison]
    assert drawn == [
        "sparsity ρ over steps", "accuracy x 100 over steps, development set", "sparsity ρ"
    ]  # fmt: skip


def test_a_few_of_many_evaluations() -> None:
    curves = {"validation/rho_layer_0": dict.fromkeys(range(100), 0.1)}
    drawn = lines(course_figure(Course(curves, RESULT)), "columns open")
    assert list(drawn) == ["step 30"]
    [axes] = [
        a for a in course_figure(Course(curves, RESULT)).axes if a.get_title() == "sparsity ρ"
    ]
    assert [line.get_label() for line in axes.lines] == [
        "step 0", "step 25", "step 50", "step 74", "step 99"
    ]  # fmt: skip


def test_a_real_run(finished_run: Path) -> None:
    result = read_result(finished_run)
    assert result is not None
    course = read_course(finished_run, result)
    for name, key in (("rho", "sparsity_per_layer"), ("row_share", "row_share")):
        over_layers = course.layers(name)
        assert over_layers[result["steps"]] == result[key]
        assert len(over_layers) >= 2
    assert set(course.curve("train/rho")) == set(range(6))
    figure = course_figure(course)
    assert lines(figure, "sparsity ρ over steps")["development set"][1][-1] == result["sparsity"]


def test_no_curve_or_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no metrics\.csv"):
        read_course(tmp_path, RESULT)
    (tmp_path / "metrics.csv").write_text("step,name,value\n1,train/rho,much\n")
    with pytest.raises(ValueError, match="is no run's curve"):
        read_course(tmp_path, RESULT)


def test_layers_by_evaluations() -> None:
    [axes] = layers_figure(Course(CURVES, RESULT)).axes
    fields = {text.get_position(): text.get_text() for text in axes.texts}
    assert fields == {
        (0, 0): "10", (1, 0): "30", (2, 0): "50", (0, 1): "30", (1, 1): "50", (2, 1): "70",
    }  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "30"]
