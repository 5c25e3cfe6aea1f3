"""Pictures of a measured table: score against ρ, differences to the paper, learning curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aaa.report.looks import (
    BARS,
    REFERENCE,
    bar_handles,
    curve_handles,
    looks,
    panels,
    row_handles,
    series_handles,
    series_looks,
)
from aaa.report.measured import QUANTITIES, RHO, SCORE, Column, Measured
from aaa.report.statistics import DIGITS, Spread, shown, spread
from aaa.report.wording import unique_labels

TRAIN_LOSS = "train_loss"
MOST_CURVES = 10  # rows beyond which curves could not be told apart
LETTER = 0.085  # inches, of a field's label

Point = tuple[Spread, Spread]  # ρ and score


def charts(table: Measured) -> dict[str, Figure]:
    """The pictures that make sense for the table, by name; each has a panel a column."""
    figures: dict[str, Figure] = {}
    measured = [
        column
        for column in table.columns
        if any(table.cell(row.name, column.name).values(table.main) for row in table.rows)
    ]
    if not measured:
        return figures
    if any(row.x is not None for row in table.rows):
        handles = series_handles(table, _has_stated_lines(table, measured))
        figures["lines"] = panels(table, measured, draw_lines, handles)
    elif {RHO, SCORE} <= set(table.quantities):
        ours = {name for column in measured for name in _points(table, column)}
        papers = {name for column in measured for name in _paper_points(table, column)}
        figures["score-against-rho"] = panels(
            table, measured, draw_score_against_rho,
            row_handles(table, ours | papers, with_paper=bool(papers)),
        )  # fmt: skip
    else:
        names = [column.name for column in measured]
        figures["bars"] = panels(table, measured, draw_bars, bar_handles(table, names))
    if _gaps(table):
        figures["differences"] = draw_differences(table)
    if len(table.rows) <= MOST_CURVES:
        for name, what, draw in (
            ("learning-curves", SCORE, draw_learning_curves),
            ("loss-curves", TRAIN_LOSS, draw_loss_curves),  # where there is nothing better
        ):
            curved = {c: rows for c in measured if (rows := _curves(table, c, what))}
            if curved:
                drawn = {row for rows in curved.values() for row in rows}
                figures[name] = panels(table, list(curved), draw, curve_handles(table, drawn))
                break
    return figures


def draw_score_against_rho(axes: Axes, table: Measured, column: Column) -> None:
    """Every row at its ρ and score, ours with deviations; compared rows are joined.

    A row with ρ 0 (full attention) is a line across, so that the sparse ones have room.
    """
    of_row = looks(table)
    for is_paper, points in (
        (True, _paper_points(table, column)),
        (False, _points(table, column)),
    ):
        linestyle = ":" if is_paper else "-"
        for row in table.rows:
            if row.name not in points:
                continue
            (rho, score), look = points[row.name], of_row[row.name]
            if _is_none(rho):
                axes.axhline(score.mean, color=look.color, linewidth=1, linestyle=linestyle)
                continue
            other = points.get(row.compared_with or "")
            if other is not None and not _is_none(other[0]):
                axes.plot(
                    [other[0].mean, rho.mean], [other[1].mean, score.mean], color=look.color,
                    linewidth=0.8, linestyle=linestyle, alpha=0.6, zorder=1,
                )  # fmt: skip
            axes.errorbar(
                rho.mean, score.mean, xerr=rho.deviation, yerr=score.deviation, markersize=6,
                marker=look.marker, color=look.color, linestyle="", elinewidth=0.9,
                markerfacecolor="none" if is_paper else look.color, zorder=2 if is_paper else 3,
            )  # fmt: skip
    axes.set(xlabel="sparsity ρ, %", ylabel=column.metric or QUANTITIES[SCORE])
    axes.margins(0.08)


def draw_lines(axes: Axes, table: Measured, column: Column) -> None:
    """The main quantity over ``Row.x``, a line a series; rows without a series are in each."""
    placed = sorted(
        ((row.x, row) for row in table.rows if row.x is not None), key=lambda pair: pair[0]
    )
    for series, look in series_looks(table).items():
        cells = [
            (x, table.cell(row.name, column.name))
            for x, row in placed
            if row.series in (series, None)
        ]
        ours = [(x, found) for x, cell in cells if (found := spread(cell.values(table.main)))]
        axes.errorbar(
            [x for x, _ in ours], [found.mean for _, found in ours],
            yerr=[found.deviation or 0.0 for _, found in ours], marker=look.marker,
            color=look.color, linestyle=look.dashes, elinewidth=0.9, markersize=5,
        )  # fmt: skip
        stated = [(x, cell.paper[table.main]) for x, cell in cells if table.main in cell.paper]
        axes.plot(
            [x for x, _ in stated], [value for _, value in stated], marker=look.marker,
            color=look.color, markerfacecolor="none", linestyle=":", linewidth=0.8, markersize=5,
        )  # fmt: skip
    places = sorted({x for x, _ in placed})
    if len(places) <= MOST_CURVES:
        axes.set_xticks(places, [f"{x:g}" for x in places])
    names = [name for name in series_looks(table) if name]
    axes.set_xlabel(names[0] if len(names) == 1 else "")
    axes.set_ylabel(column.metric or QUANTITIES[table.main])


def draw_bars(axes: Axes, table: Measured, column: Column) -> None:
    """Each row's quantities side by side, ours filled and the paper's hatched."""
    sides = 2 if table.has_paper else 1
    width = 0.8 / (sides * len(table.quantities))
    look: dict[str, Any] = {"align": "edge", "edgecolor": REFERENCE, "linewidth": 0.8}
    for place, row in enumerate(table.rows):
        cell = table.cell(row.name, column.name)
        for number, quantity in enumerate(table.quantities):
            left = place - 0.4 + sides * width * number
            color, hatch = BARS[number]
            found = spread(cell.values(quantity))
            if found is not None:
                axes.bar(left, found.mean, width, yerr=found.deviation, color=color, **look)
            if quantity in cell.paper:
                height = cell.paper[quantity]
                axes.bar(left + width, height, width, color="none", hatch=hatch, **look)
    labels = unique_labels(table.rows)
    many = len(table.rows) > 1
    axes.set_xticks(
        range(len(table.rows)), [labels[row.name] if many else "" for row in table.rows],
        rotation=30 if many else 0, ha="right",
    )  # fmt: skip
    axes.set_ylabel("%")
    axes.set_xlim(-0.7, len(table.rows) - 0.3)
    axes.set_ylim(bottom=0)


def draw_learning_curves(axes: Axes, table: Measured, column: Column) -> None:
    """The score on the development set over training, the mean of the seeds, a line a row."""
    _draw_curves(axes, table, column, SCORE)
    axes.set_ylabel(column.metric or QUANTITIES[SCORE])


def draw_loss_curves(axes: Axes, table: Measured, column: Column) -> None:
    """The loss of the training batches, the mean of the seeds, a line a row."""
    _draw_curves(axes, table, column, TRAIN_LOSS)
    axes.set_ylabel("training loss")


def draw_differences(table: Measured) -> Figure:
    """Ours minus the paper's, a cell a field; darker the further apart, signed in words."""
    gaps = _gaps(table)
    rows = [row for row in table.rows if any((row.name, c.name) in gaps for c in table.columns)]
    columns = [c for c in table.columns if any((row.name, c.name) in gaps for row in rows)]
    labels = unique_labels(rows)
    left = 0.2 + LETTER * max(len(labels[row.name]) for row in rows)
    field = max(0.8, 0.1 + LETTER * max(len(column.label) for column in columns))
    width, height = left + field * len(columns) + 0.1, 0.8 + 0.34 * len(rows)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (left / width, 0.4 / height, 1 - (left + 0.1) / width, 1 - 0.8 / height)
    )
    values = [[gaps.get((row.name, c.name), math.nan) for c in columns] for row in rows]
    most = max(1.0, *map(abs, gaps.values()))
    shades = [[abs(value) for value in line] for line in values]
    axes.imshow(shades, cmap="Greys", vmin=0, vmax=1.6 * most, aspect="auto")
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            if not math.isnan(value):
                text = f"{shown(value):+.{DIGITS}f}".replace("-", "\N{MINUS SIGN}")
                axes.text(x, y, text, ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(columns)), [column.label for column in columns], fontsize=9)
    axes.set_yticks(range(len(rows)), [labels[row.name] for row in rows], fontsize=9)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"{QUANTITIES[table.main]}: ours minus the paper's", fontsize=9)
    return figure


def _is_none(rho: Spread) -> bool:
    return round(rho.mean, DIGITS) == 0


def _points(table: Measured, column: Column) -> dict[str, Point]:
    """ρ and score of each measured row."""
    found = {}
    for row in table.rows:
        cell = table.cell(row.name, column.name)
        rho, score = spread(cell.values(RHO)), spread(cell.values(SCORE))
        if rho is not None and score is not None:
            found[row.name] = (rho, score)
    return found


def _paper_points(table: Measured, column: Column) -> dict[str, Point]:
    cells = {row.name: table.cell(row.name, column.name).paper for row in table.rows}
    return {
        name: (Spread(paper[RHO], None, 1), Spread(paper[SCORE], None, 1))
        for name, paper in cells.items()
        if RHO in paper and SCORE in paper
    }


def _has_stated_lines(table: Measured, columns: Sequence[Column]) -> bool:
    placed = [row.name for row in table.rows if row.x is not None]
    return any(table.main in table.cell(row, c.name).paper for row in placed for c in columns)


def _gaps(table: Measured) -> dict[tuple[str, str], float]:
    """Ours minus the paper's of the main quantity, where both are there."""
    return {
        place: found.mean - cell.paper[table.main]
        for place, cell in table.cells.items()
        if table.main in cell.paper and (found := spread(cell.values(table.main)))
    }


def _draw_curves(axes: Axes, table: Measured, column: Column, name: str) -> None:
    of_row = looks(table)
    for row, curve in _curves(table, column, name).items():
        look = of_row[row]
        axes.plot(
            list(curve), list(curve.values()), color=look.color, marker=look.marker, markersize=4,
            markevery=max(1, len(curve) // 5), linewidth=1.3, linestyle=look.dashes,
        )  # fmt: skip
    axes.set_xlabel("optimiser step")


def _curves(table: Measured, column: Column, name: str) -> dict[str, dict[int, float]]:
    """Each row's mean over the seeds that were evaluated at a step; none of a single step."""
    curves = {}
    for row in table.rows:
        steps: dict[int, list[float]] = {}
        for run in table.cell(row.name, column.name).finished:
            for step, value in run.curves.get(name, ()):
                steps.setdefault(int(step), []).append(value)
        if len(steps) > 1:
            curves[row.name] = {step: statistics.fmean(steps[step]) for step in sorted(steps)}
    return curves
