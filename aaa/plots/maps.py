"""Attention maps: which cells a mask opens, and why."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path

from aaa.masks import SparseMask

CLOSED, OPEN, COLUMN, ROW = range(4)
# From light to dark, evenly: a printer without colour keeps them apart.
COLOURS = ("#ffffff", "#c2c2c2", "#e08214", "#2d2f7f")
MARK = {ROW: ">", COLUMN: "v"}  # beside a chosen row, above a chosen column
LEGEND = {
    ROW: "in a chosen row",
    COLUMN: "in a chosen column",
    OPEN: "open",
    CLOSED: "closed",
}

MOST_LINED = 64  # tokens up to which cells are told apart by thin lines
GAP = 0.25  # inches between panels
POINT = 1 / 72  # inches


@dataclass(frozen=True)
class Map:
    """One panel: a text's N x N cells and what is written around them.

    Args:
        title: above the panel.
        kinds_NN: for each cell CLOSED, or what opens it: OPEN (a diagonal or a single cell),
            COLUMN or ROW; where several do, the last of these.
        rows, columns: the tokens whose whole row, or column, is open.
        tokens: the text's tokens, to stand at both axes; empty for none.
    """

    title: str
    kinds_NN: np.ndarray
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """N, the number of tokens."""
        return len(self.kinds_NN)


def map_of(
    mask: SparseMask, title: str, tokens: Sequence[str] = (), sample: int = 0, head: int = 0
) -> Map:
    """The map of one sample and head of a mask, its padding cut off.

    Where every row (or every column) is open, as in full attention, none is told apart.

    Raises:
        ValueError: if the mask has no such head.
    """
    cells_HNN = mask.dense()[sample].detach()
    if head >= len(cells_HNN) > 1:
        raise ValueError(f"head={head}: this mask has {len(cells_HNN)} heads, counted from 0")
    real_N = mask.keep_BN[sample].cpu().numpy()
    cells_NN = cells_HNN[min(head, len(cells_HNN) - 1)].cpu().numpy() > 0
    chosen = {}
    for kind, gates_BHN in ((ROW, mask.rows_BHN), (COLUMN, mask.columns_BHN)):
        gates_N = np.zeros(len(real_N), dtype=bool)
        if gates_BHN is not None:
            gates_HN = gates_BHN[min(sample, len(gates_BHN) - 1)].detach().cpu().numpy() > 0
            gates_N = np.broadcast_to(gates_HN[min(head, len(gates_HN) - 1)], real_N.shape)
        chosen[kind] = gates_N[real_N]
    kinds_NN = np.where(cells_NN, OPEN, CLOSED)[np.ix_(real_N, real_N)]
    is_open = kinds_NN == OPEN
    if not chosen[COLUMN].all():
        kinds_NN[is_open & chosen[COLUMN][None, :]] = COLUMN
    if not chosen[ROW].all():
        kinds_NN[is_open & chosen[ROW][:, None]] = ROW
    rows, columns = (tuple(np.flatnonzero(chosen[kind]).tolist()) for kind in (ROW, COLUMN))
    return Map(title, kinds_NN, rows, columns, tuple(tokens))


@dataclass(frozen=True)
class _Layout:
    """Where everything is, in inches, so that letters and cells fit each other at any length."""

    size: int  # tokens of the longest text
    widest_token: float  # in letter sizes
    widest_title: float  # likewise
    title_lines: int
    per_row: int
    num_rows: int

    @property
    def cell(self) -> float:
        """The side of a cell: large for a few tokens, and never below what a label needs."""
        return min(0.26, max(0.1, 5.5 / self.size))

    @property
    def points(self) -> float:
        """Of the tokens' letters."""
        return min(9.0, 0.8 * self.cell / POINT)

    @property
    def title_points(self) -> float:
        """Of a panel's title."""
        return min(18.0, max(9.0, 2.2 * self.side))

    @property
    def side(self) -> float:
        return self.cell * self.size

    @property
    def labels(self) -> float:
        """Room for tokens and marks."""
        return (self.widest_token + 1.6) * self.points * POINT

    @property
    def overhang(self) -> float:
        """Of a title on both sides of its map, which is narrower for a short text."""
        return max(0.0, (self.widest_title * self.title_points * POINT - self.side) / 2)

    @property
    def left(self) -> float:
        return max(self.labels, self.overhang)

    @property
    def panel(self) -> tuple[float, float]:
        titles = 1.35 * self.title_points * self.title_lines * POINT
        width = self.left + self.side + self.overhang + GAP
        return width, titles + self.labels + self.side + GAP

    @property
    def text_points(self) -> float:
        """Of the figure's title and legend: a large picture is looked at from further away."""
        return min(24.0, max(9.0, 0.8 * self.panel[0] * self.per_row))

    @property
    def figure(self) -> tuple[float, float]:
        width, height = self.panel
        margins = self.header + self.footer
        return max(4.6, self.per_row * width + GAP), self.num_rows * height + margins

    @property
    def header(self) -> float:
        return 3.0 * self.text_points * POINT

    @property
    def footer(self) -> float:
        return 2.6 * self.text_points * POINT

    def place(self, number: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel's map, as shares of the figure."""
        row, column = divmod(number, self.per_row)
        (width, height), (across, up) = self.panel, self.figure
        left = (across - self.per_row * width + GAP) / 2 + column * width + self.left
        bottom = self.footer + (self.num_rows - 1 - row) * height + GAP / 2
        return left / across, bottom / up, self.side / across, self.side / up


def figure_of(maps: Sequence[Map], title: str, per_row: int | None = None) -> Figure:
    """All maps in one picture, which grows with the number of tokens so that each can be read."""
    assert maps, "a figure needs a map"
    per_row = per_row or (len(maps) if len(maps) <= 3 else min(4, math.ceil(len(maps) ** 0.5)))
    layout = _Layout(
        size=max(item.size for item in maps),
        widest_token=_widest(token for item in maps for token in item.tokens),
        widest_title=_widest(line for item in maps for line in item.title.split("\n")),
        title_lines=max(1 + item.title.count("\n") for item in maps),
        per_row=per_row,
        num_rows=-(-len(maps) // per_row),
    )
    width, height = layout.figure
    figure = Figure(figsize=(width, height))
    for number, item in enumerate(maps):
        _draw(figure.add_axes(layout.place(number)), item, layout)
    points = layout.text_points
    letters = int(width / (0.6 * 1.15 * points * POINT))
    figure.text(
        0.5, 1 - 0.6 * points * POINT / height, textwrap.fill(title, letters), ha="center",
        va="top", fontsize=1.15 * points, parse_math=False,
    )  # fmt: skip
    kinds = {int(kind) for item in maps for kind in np.unique(item.kinds_NN)}
    handles = _legend(kinds)
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles) if width > 6 else 2,
        fontsize=points * (1 if width > 6 else 0.85), frameon=False, borderaxespad=0.1,
    )  # fmt: skip
    return figure


def _widest(texts: Iterable[str]) -> float:
    """The width of the widest text in bold, in letter sizes; 0 if there is none."""
    bold = FontProperties(size=1, weight="bold")
    sizes = (text_to_path.get_text_width_height_descent(text, bold, False) for text in set(texts))
    return max((width for width, _, _ in sizes), default=0.0)


def _draw(axes: Axes, item: Map, layout: _Layout) -> None:
    axes.imshow(
        item.kinds_NN, cmap=ListedColormap(COLOURS), vmin=0, vmax=len(COLOURS) - 1,
        interpolation="none", aspect="auto",
    )  # fmt: skip
    axes.set_title(
        item.title, fontsize=layout.title_points, parse_math=False,
        y=1.0,  # else it already stands above the tokens
        pad=layout.labels / POINT + 0.25 * layout.title_points,
    )  # fmt: skip
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    if item.size <= MOST_LINED:
        edges = np.arange(-0.5, item.size)
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="#9a9a9a", linewidth=0.4)
        axes.tick_params(which="minor", length=0)
    for kind, opened, axis in ((ROW, item.rows, axes.yaxis), (COLUMN, item.columns, axes.xaxis)):
        chosen = opened if len(opened) < item.size else ()
        axis.set_ticks(list(range(item.size)) if item.tokens else [])
        if item.tokens:
            _label(axis, item.tokens, chosen, layout.points)
        _mark(axes, kind, chosen, layout)
        axis.set_tick_params(pad=1.1 * layout.points)
    axes.tick_params(axis="x", labelrotation=90)


def _label(axis: Axis, tokens: tuple[str, ...], chosen: tuple[int, ...], points: float) -> None:
    labels = axis.set_ticklabels(tokens, fontsize=points, parse_math=False)
    for place, label in enumerate(labels):
        label.set_color("#000000" if place in chosen else "#6b6b6b")
        label.set_fontweight("bold" if place in chosen else "normal")


def _mark(axes: Axes, kind: int, chosen: tuple[int, ...], layout: _Layout) -> None:
    """A triangle at the border of the map for each chosen row or column."""
    away = 0.55 * layout.points * POINT / layout.side
    x: Sequence[float] = chosen
    y: Sequence[float] = chosen
    if kind == ROW:
        x, transform = [-away] * len(chosen), axes.get_yaxis_transform()
    else:
        y, transform = [1 + away] * len(chosen), axes.get_xaxis_transform()
    axes.plot(
        x, y, MARK[kind], transform=transform, color=COLOURS[kind],
        markersize=0.8 * layout.points, markeredgecolor="#000000", markeredgewidth=0.4,
        clip_on=False, scalex=False, scaley=False,
    )  # fmt: skip


def _legend(kinds: set[int]) -> list[Patch]:
    return [
        Patch(facecolor=COLOURS[kind], edgecolor="#000000", linewidth=0.4, label=text)
        for kind, text in LEGEND.items()
        if kind in kinds
    ]
