"""Table 6: how many rows and columns runs have chosen, and of which tokens. Reads JSON alone."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from aaa.plots.splits import split_of
from aaa.report.markdown import escape as escape_markdown
from aaa.report.markdown import grid

Result = dict[str, Any]

HEADER = ["layer", "ρ %", "rows %", "rows a text", "columns %", "columns a text"]
TOKENS_HEADER = ["row", "chosen %", "occurs", "column", "chosen %", "occurs"]
QUANTITIES = (
    ("sparsity_per_layer", 100), ("row_share", 100), ("row_count", 1), ("column_share", 100),
    ("column_count", 1),
)  # fmt: skip
NONE = "–"


def has_axes(result: Result) -> bool:
    """Whether a run's result says which rows and columns were chosen."""
    return "chosen_tokens" in result


def axes_lines(result: Result) -> list[list[str]]:
    """A line a layer, and one for all: the mean over the layers that have the quantity."""
    columns = []
    for name, scale in QUANTITIES:
        values = result[name]
        there = [value for value in values if value is not None]
        mean = sum(there) / len(there) if there else None
        columns.append(
            [NONE if value is None else f"{scale * value:.1f}" for value in [*values, mean]]
        )
    layers = [*map(str, range(len(result["sparsity_per_layer"]))), "all"]
    return [list(line) for line in zip(layers, *columns, strict=True)]


def token_lines(result: Result) -> list[list[str]]:
    """The most often chosen tokens: rows on the left, columns on the right."""
    sides = [
        [[str(t["token"]), f"{100 * t['chosen']:.1f}", str(t["occurrences"])] for t in tokens]
        for tokens in (result["chosen_tokens"]["rows"], result["chosen_tokens"]["columns"])
    ]
    longest = max(map(len, sides))
    left, right = ([*side, *[[""] * 3] * (longest - len(side))] for side in sides)
    return [one + other for one, other in zip(left, right, strict=True)]


def axes_title(result: Result) -> str:
    """Whose figures they are, and of which texts."""
    who = "{task} · {pattern} · {model} · seed {seed}".format_map(result)
    return f"{who} · {split_of(result)}"


def axes_markdown(result: Result) -> str:
    """Both tables of a run as GitHub's Markdown."""
    tables = [(HEADER, axes_lines(result)), (TOKENS_HEADER, token_lines(result))]
    return f"**{axes_title(result)}**\n\n" + "\n".join(
        grid(header, [list(map(escape_markdown, line)) for line in lines], left=0) + "\n"
        for header, lines in tables
        if lines
    )


def show_axes(result: Result, console: Console) -> None:
    """Both tables of a run on a terminal."""
    tables = [
        ("rows and columns open", HEADER, axes_lines(result)),
        ("the tokens most often chosen", TOKENS_HEADER, token_lines(result)),
    ]
    for what, header, lines in tables:
        if not lines:  # a learned pattern without rows and columns
            continue
        rich = RichTable(title=f"{axes_title(result)}\n{what}")
        for name in header:
            words = name in ("row", "column")
            rich.add_column(name, justify="left" if words else "right")
        for line in lines:
            rich.add_row(*(escape(cell) for cell in line))
        console.print(rich)
