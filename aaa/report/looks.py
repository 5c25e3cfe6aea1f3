"""How the pictures of measured tables look: markers, lines, legends, and panels side by side.

Everything is told apart by shape, fill and text, not by colour alone: ours is filled and the
paper's hollow, learned patterns are dark and fixed ones light.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path

from aaa.report.measured import QUANTITIES, RHO, Column, Measured, Row
from aaa.report.wording import unique_labels

Draw = Callable[[Axes, Measured, Column], None]

REFERENCE, FIXED, LEARNED, PAPER = "#000000", "#e08214", "#2d2f7f", "#6b6b6b"
MARKERS = "osDv^<>pPX*hd"
DASHES: tuple[Any, ...] = (
    "-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)),
)  # fmt: skip
# Of the quantities of a table: colour, and the paper's hatching.
BARS = ((LEARNED, "////"), (FIXED, "...."), ("#8c8c8c", "xxxx"), ("#ffffff", "++++"))
PER_ROW = 4
# Inches: a panel and, within it, the room for its title and labels; of a legend's entry the height
# and what stands beside its words.
PANEL = (3.5, 3.0)
LEFT, RIGHT, TOP, BOTTOM = 0.65, 0.15, 0.32, 0.5
ENTRY, HANDLE = 0.24, 0.55
LEGEND_SIZE = 8  # points


@dataclass(frozen=True)
class Look:
    """Of a row: a row without sparsity has no marker, being a bare line."""

    marker: str
    color: str
    dashes: Any


def looks(table: Measured) -> dict[str, Look]:
    """The look of each row, by name; no two have the same marker in the same color."""
    found: dict[str, Look] = {}
    for number, row in enumerate(table.rows):
        is_dense = _is_dense(table, row)
        color = LEARNED if row.learned else REFERENCE if is_dense else FIXED
        taken = {look.marker for look in found.values() if look.color == color}
        marker = "" if is_dense else _marker(number, taken)
        found[row.name] = Look(marker, color, DASHES[number % len(DASHES)])
    return found


def series_looks(table: Measured) -> dict[str | None, Look]:
    """The look of each line of a figure; a figure may have one line without a name."""
    names = dict.fromkeys(row.series for row in table.rows if row.x is not None)
    named = [name for name in names if name is not None]
    return {
        name: Look(
            MARKERS[place % len(MARKERS)],
            (LEARNED, FIXED, REFERENCE)[place % 3],
            DASHES[place % len(DASHES)],
        )
        for place, name in enumerate(named or [None])
    }


def row_handles(table: Measured, drawn: Container[str], with_paper: bool) -> list[Line2D]:
    """A legend of the rows that are drawn, by name, as points, and of the paper's."""
    labels = unique_labels(table.rows)
    handles = [
        Line2D(
            [], [], marker=look.marker, color=look.color, linestyle="" if look.marker else "-",
            label=labels[name],
        )
        for name, look in looks(table).items()
        if name in drawn
    ]  # fmt: skip
    return handles + _paper_handles(with_paper)


def series_handles(table: Measured, with_paper: bool) -> list[Line2D]:
    """A legend of a figure's lines, and of the paper's."""
    handles = [
        Line2D(
            [], [], marker=look.marker, color=look.color, linestyle=look.dashes,
            label=name or QUANTITIES[table.main],
        )
        for name, look in series_looks(table).items()
    ]  # fmt: skip
    return handles + _paper_handles(with_paper)


def curve_handles(table: Measured, drawn: Container[str]) -> list[Line2D]:
    """A legend of the rows that are drawn, by name, as lines."""
    labels = unique_labels(table.rows)
    return [
        Line2D(
            [], [], marker=look.marker, color=look.color, linestyle=look.dashes, markersize=4,
            label=labels[name],
        )
        for name, look in looks(table).items()
        if name in drawn
    ]  # fmt: skip


def bar_handles(table: Measured, drawn: Container[str]) -> list[Patch]:
    """A legend of quantities as bars, and of the paper's in the columns that are drawn."""
    handles = []
    for (color, hatch), quantity in zip(BARS, table.quantities, strict=False):
        name = QUANTITIES[quantity]
        handles.append(Patch(facecolor=color, edgecolor=REFERENCE, label=name))
        if any(quantity in cell.paper for (_, c), cell in table.cells.items() if c in drawn):
            paper = f"{name}, the paper's"
            handles.append(Patch(facecolor="none", edgecolor=REFERENCE, hatch=hatch, label=paper))
    return handles


def panels(
    table: Measured, columns: Sequence[Column], draw: Draw, handles: Sequence[Any]
) -> Figure:
    """A panel a column in one figure, with one legend below.

    Everything has its place in inches: matplotlib's own layouts draw the figure twice to find it.
    """
    num_rows = -(-len(columns) // PER_ROW)
    per_row = -(-len(columns) // num_rows)
    entries = [HANDLE + _inches(str(handle.get_label())) for handle in handles]
    width = max(5.0, PANEL[0] * per_row, *entries)
    legend_columns = _legend_columns(entries, width)
    legend = ENTRY * -(-len(handles) // legend_columns) + 0.1
    height = PANEL[1] * num_rows + legend
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(num_rows, per_row, squeeze=False)
    inner = (width / per_row - LEFT - RIGHT, PANEL[1] - TOP - BOTTOM)
    figure.subplots_adjust(
        left=LEFT / width, right=1 - RIGHT / width, top=1 - TOP / height,
        bottom=(legend + BOTTOM) / height, wspace=(LEFT + RIGHT) / inner[0],
        hspace=(TOP + BOTTOM) / inner[1],
    )  # fmt: skip
    for axes, column in zip(grid.flat, columns, strict=False):
        draw(axes, table, column)
        # At its place: matplotlib measures all of a panel's texts to find one.
        axes.set_title(column.label, y=1.0, fontsize=10, parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
    for axes in list(grid.flat)[len(columns) :]:
        axes.set_axis_off()
    figure.legend(
        handles=list(handles), loc="lower center", ncols=legend_columns, fontsize=LEGEND_SIZE,
        frameon=False,
    )  # fmt: skip
    return figure


def _legend_columns(entries: Sequence[float], width: float) -> int:
    """How many columns of a legend's entries go beside each other, all in inches; at least one."""
    for columns in range(len(entries), 1, -1):
        # Like matplotlib: the entries go down one column after the other, the first ones longer.
        if sum(part.max() for part in np.array_split(np.array(entries), columns)) <= width:
            return columns
    return 1


def _inches(label: str) -> float:
    font = FontProperties(size=LEGEND_SIZE)
    return text_to_path.get_text_width_height_descent(label, font, is_math_text(label))[0] / 72


def _is_dense(table: Measured, row: Row) -> bool:
    values = [value for c in table.columns for value in table.cell(row.name, c.name).values(RHO)]
    return bool(values) and not any(values)


def _marker(number: int, taken: Container[str]) -> str:
    """The one of a row's number or the next that is free; a numeral where none is."""
    start = number % len(MARKERS)
    free = [marker for marker in MARKERS[start:] + MARKERS[:start] if marker not in taken]
    return free[0] if free else f"${number + 1}$"


def _paper_handles(with_paper: bool) -> list[Line2D]:
    if not with_paper:
        return []
    label = "hollow, dotted: the paper's"
    return [
        Line2D([], [], marker="o", color=PAPER, markerfacecolor="none", linestyle=":", label=label)
    ]
