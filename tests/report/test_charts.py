"""The pictures of a measured table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aaa.report.charts import charts
from aaa.report.measured import Cell, Measured, Row, Run
from tests.report.fakes import LABELS, TASKS, lines_series, table_4


def test_points_are_our_means_and_the_papers(table: Measured, figures: dict[str, Figure]) -> None:
    figure = figures["score-against-rho"]
    axes = figure.axes[TASKS.index("stsb")]
    assert axes.get_title() == LABELS["stsb"]
    filled = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))  # type: ignore[index, arg-type]
        for line in axes.lines
        if line.get_marker() not in ("None", "", "_", "|") and line.get_markerfacecolor() != "none"
    }
    expected = {
        (np.mean(cell.values("rho")), np.mean(cell.values("score")))
        for row in table.rows[1:]
        for cell in [table.cell(row.name, "stsb")]
    }
    assert np.allclose(sorted(filled), sorted(expected))
    hollow = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))  # type: ignore[index, arg-type]
        for line in axes.lines
        if line.get_markerfacecolor() == "none"
    }
    assert (72.0, 79.0) in hollow


def test_full_attention_is_a_line_across(table: Measured, figures: dict[str, Figure]) -> None:
    axes = figures["score-against-rho"].axes[TASKS.index("stsb")]
    across = [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]  # type: ignore[index, arg-type]
    mean = np.mean(table.cell("full", "stsb").values("score"))
    assert across == pytest.approx([88.0, mean])


def test_differences_are_ours_minus_the_papers(
    table: Measured, figures: dict[str, Figure]
) -> None:
    texts = [text.get_text() for text in figures["differences"].axes[0].texts]
    gap = np.mean(table.cell("full", "mnli").values("score")) - 84
    assert texts[0] == f"{gap:+.1f}".replace("-", "\N{MINUS SIGN}")
    assert len(texts) == 60  # one without our figures in four rows


def test_curves_are_means_over_seeds(table: Measured, figures: dict[str, Figure]) -> None:
    axes = figures["learning-curves"].axes[0]
    first = [dict(run.curves["score"])[200] for run in table.cell("full", "mnli").runs]
    assert axes.lines[0].get_ydata()[0] == pytest.approx(np.mean(first))  # type: ignore[index]


def test_the_loss_where_there_was_one_evaluation() -> None:
    made = table_4(seeds=1, tasks=("rte",))
    cells = {
        place: replace(
            cell,
            runs=tuple(
                replace(run, curves={"score": [(9, 5.0)], "train_loss": [(1, 2.0), (9, 1.0)]})
                for run in cell.runs
            ),
        )
        for place, cell in made.cells.items()
    }
    figures = charts(replace(made, cells=cells))
    assert "learning-curves" not in figures
    assert list(figures["loss-curves"].axes[0].lines[0].get_ydata()) == [2.0, 1.0]  # type: ignore[arg-type]


def test_a_figure_has_a_line_a_series_and_shares_what_has_none() -> None:
    figures = charts(lines_series())
    assert list(figures) == ["lines"]
    data = [list(line.get_ydata()) for line in figures["lines"].axes[0].lines]  # type: ignore[arg-type]
    assert [50.0, 52.0, 54.0] in data
    assert [50.0, 56.0, 58.0] in data


def test_quantities_without_a_score_are_bars() -> None:
    cell = Cell(
        (Run(0, "finished", "r", {"row_share": 0.8, "column_share": 1.6}),),
        {"row_share": 1.0, "column_share": 1.7},
    )
    table = Measured(
        "t", "T", (Row("aaa", "AAA"),), table_4().columns[:1], {("aaa", "mnli"): cell},
        quantities=("row_share", "column_share"),
    )  # fmt: skip
    figures = charts(table)
    assert list(figures) == ["bars", "differences"]
    heights = sorted(patch.get_height() for patch in figures["bars"].axes[0].patches)  # type: ignore[attr-defined]
    assert heights == [0.8, 1.0, 1.6, 1.7]


def test_nothing_measured_nothing_drawn(table: Measured) -> None:
    assert charts(replace(table, cells={})) == {}


@pytest.mark.parametrize("tasks", [("rte",), TASKS])
def test_no_entry_of_a_legend_is_cut_off(tasks: tuple[str, ...]) -> None:
    made = table_4(seeds=1, tasks=tasks)
    long = [replace(row, label=f"{row.label} (pre-train & fine-tune)") for row in made.rows]
    for figure in charts(replace(made, rows=tuple(long))).values():
        FigureCanvasAgg(figure).draw()
        for legend in figure.legends:
            box, whole = legend.get_window_extent(), figure.bbox
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1
