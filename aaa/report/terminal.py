"""A measured table on a terminal, as many columns at a time as fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from aaa.report.measured import Column
from aaa.report.statistics import RowComparison
from aaa.report.wording import Shown, Wording, p_text, row_verdict

# Letters of a row's label, and of a cell, before they are folded.
LABEL, CELL = 30, 18


def show(wording: Wording, console: Console) -> None:
    """Prints the table, what its signs mean, and how compared rows come off."""
    console.print(Text(wording.title, "bold"))
    for columns in _that_fit(wording, console.width):
        console.print(_part(wording, columns))
    if wording.table.has_paper:
        console.print(Text("In brackets: the paper's.", "dim"))
    for sentence in wording.legend():
        console.print(Text(sentence, "dim"))
    _show_verdicts(wording.verdicts, console)


def _part(wording: Wording, columns: list[Column]) -> RichTable:
    rich = RichTable()
    rich.add_column("", max_width=LABEL, overflow="fold")
    for column in columns:
        rich.add_column(_head(column), justify="right", overflow="fold", max_width=CELL)
    for block in wording.table.blocks():
        for row in block:
            cells = [_cell(wording.cell(row.name, column.name)) for column in columns]
            rich.add_row(Text(row.label), *cells)
        rich.add_section()
    return rich


def _head(column: Column) -> Text:
    return Text(f"{column.label}\n{column.metric}" if column.metric else column.label)


def _cell(shown: Shown) -> Text:
    """Score and arrow, then ρ, then the paper's."""
    style = "bold" if shown.is_best else "" if shown.main.value else "italic"
    text = Text().append(shown.main_text, style)
    lines = [(shown.main.arrow, "")]
    lines += [(f"{part.name} {part.value}", "") for part in shown.others if part.value]
    lines += [(shown.note, "italic"), (_paper(shown), "dim")]
    for line, style in lines:
        if line:
            text.append("\n").append(line, style)
    return text


def _paper(shown: Shown) -> str:
    main = " ".join(filter(None, (shown.main.paper, shown.main.paper_arrow)))
    others = [f"{part.name} {part.paper}" for part in shown.others if part.paper]
    inside = ", ".join(filter(None, (main, *others)))
    return f"({inside})" if inside else ""


def _that_fit(wording: Wording, width: int) -> list[list[Column]]:
    """The columns in as few parts as the width allows, at least one column in each."""
    table = wording.table
    label = min(LABEL, max(len(row.label) for row in table.rows))
    parts: list[list[Column]] = []
    left = 0
    for column in table.columns:
        cells = [_cell(wording.cell(row.name, column.name)) for row in table.rows]
        lines = [line for cell in [_head(column), *cells] for line in cell.plain.split("\n")]
        needed = min(CELL, max(map(len, lines))) + 3
        if needed > left:
            parts.append([])
            left = width - label - 4
        parts[-1].append(column)
        left -= needed
    return parts


def _show_verdicts(rows: Sequence[RowComparison], console: Console) -> None:
    if not rows:
        return
    rich = RichTable()
    for name in ("row", "compared with", "columns", "Wilcoxon's p", "the paper"):
        rich.add_column(name, overflow="fold")
    for found in rows:
        rich.add_row(
            found.row.label, found.other.label, row_verdict(found),
            p_text(found.p_value),
            f"{found.paper_wins} of {found.paper_columns} won" if found.paper_columns else "",
        )  # fmt: skip
    console.print(rich)
    for reason in dict.fromkeys(found.reason for found in rows if found.reason):
        console.print(Text(f"No signed-rank test: {reason}.", "dim"))
