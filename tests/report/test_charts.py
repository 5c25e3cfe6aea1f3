"""The pictures of a measured table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aaa.report.charts import charts
from aaa.report.looks import MARKERS, looks
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


def labels_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_legend_lists_what_is_drawn() -> None:
    """No row that is not measured, nor the paper's points where it states no rho."""
    made = table_4(seeds=1, tasks=("rte", "cola"))
    rows = (*made.rows[:4], Row("x", "X", quoted="Tay et al. (2021)"))
    cells = {
        place: replace(cell, paper={"score": cell.paper["score"]})
        for place, cell in made.cells.items()
        if place[0] in ("full", "local2_global2", "aaa_1")
    }
    cells["x", "rte"] = Cell(paper={"score": 65.9})
    cells["local2_global2", "rte"] = Cell(paper=cells["local2_global2", "rte"].paper)
    cells["aaa_1", "rte"] = Cell((replace(cells["aaa_1", "rte"].runs[0], curves={}),))
    cells["aaa_1", "cola"] = Cell()
    figures = charts(replace(made, rows=rows, cells=cells))
    assert labels_of(figures["score-against-rho"]) == ["Full", "Local₂ + Global₂", "AAA"]
    assert labels_of(figures["learning-curves"]) == ["Full", "Local₂ + Global₂"]
    stated = {place: replace(cell, runs=()) for place, cell in made.cells.items()}
    cells |= {("local3_global1", "rte"): stated["local3_global1", "rte"]}
    assert labels_of(charts(replace(made, rows=rows, cells=cells))["score-against-rho"]) == [
        "Full", "Local₂ + Global₂", "Local₃ + Global₁", "AAA", "hollow, dotted: the paper's",
    ]  # fmt: skip


def test_figures_and_bars_name_the_papers_where_it_is_drawn() -> None:
    lines = lines_series()
    assert labels_of(charts(lines)["lines"]) == ["up", "down"]
    first = replace(lines.cells["none", "rte"], paper={"score": 50.0})
    stated = replace(lines, cells={**lines.cells, ("none", "rte"): first})
    assert labels_of(charts(stated)["lines"])[-1] == "hollow, dotted: the paper's"
    made = table_4(seeds=1, tasks=("rte", "cola"))
    cells = {
        (row, column): replace(cell, paper={}) if column == "rte" else replace(cell, runs=())
        for (row, column), cell in made.cells.items()
    }
    bars = charts(replace(made, quantities=("score",), cells=cells))["bars"]
    assert labels_of(bars) == ["score"]


def test_no_two_rows_have_the_same_marker_in_the_same_color() -> None:
    made = table_4(seeds=1, tasks=("rte",))
    names = [f"r{number}" for number in range(40)]
    rows = tuple(Row(name, name, learned=name.endswith("5")) for name in names)
    cells = {(name, "rte"): made.cells["aaa_1", "rte"] for name in names}
    found = looks(replace(made, rows=rows, cells=cells))
    assert len({(look.marker, look.color) for look in found.values()}) == len(rows)
    assert [found[name].marker for name in names[:13]] == list(MARKERS)
    figure = charts(replace(made, rows=rows, cells=cells))["score-against-rho"]
    FigureCanvasAgg(figure).draw()  # matplotlib knows all of them


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
