"""A measured table as GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from aaa.report.measured import QUANTITIES, SCORE, Column
from aaa.report.wording import Part, Shown, Wording, p_text, row_verdict


def markdown(wording: Wording) -> str:
    """The table, what its signs mean, and how compared rows come off."""
    parts = [f"**{escape(wording.title)}**", _body(wording)]
    legend = wording.legend()
    if wording.table.has_paper:
        legend.insert(0, "In brackets: the paper's.")
    parts.append(" \n".join(escape(sentence) for sentence in legend))
    if wording.verdicts:
        header = ["row", "compared with", "columns", "Wilcoxon's p"]
        lines = [
            [v.row.label, v.other.label, row_verdict(v), p_text(v.p_value)]
            for v in wording.verdicts
        ]
        parts.append(grid(header, [list(map(escape, line)) for line in lines], left=len(header)))
    return "\n\n".join(parts) + "\n"


def grid(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of escaped cells; the first ``left`` columns are words, the others numbers."""
    rule = ["---" if place < left else "---:" for place in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *lines])


def _body(wording: Wording) -> str:
    table = wording.table
    header = ["", *(
        escape(f"{column.label} {_name(column, quantity)}")
        for column in table.columns
        for quantity in table.quantities
    )]  # fmt: skip
    lines = [
        [
            escape(row.label),
            *(
                text
                for column in table.columns
                for text in _cells(wording.cell(row.name, column.name))
            ),
        ]
        for row in table.rows
    ]
    return grid(header, lines)


def _name(column: Column, quantity: str) -> str:
    """What a quantity is called; a score with what it is in that column."""
    name = QUANTITIES[quantity]
    return f"{name} ({column.metric})" if quantity == SCORE and column.metric else name


def _cells(shown: Shown) -> list[str]:
    return [_main(shown) if part is shown.main else _figure(part) for part in shown.parts]


def _main(shown: Shown) -> str:
    if not shown.main.value:
        return " ".join(filter(None, (f"*{escape(shown.state)}*", _figure(shown.main))))
    note = f"*{escape(shown.note)}*" if shown.note else ""
    return " ".join(filter(None, (_figure(shown.main, shown.is_best), note)))


def _figure(part: Part, is_best: bool = False) -> str:
    value = f"**{part.value}**" if is_best else part.value
    paper = " ".join(filter(None, (part.paper, part.paper_arrow)))
    return " ".join(filter(None, (value, part.arrow, f"({paper})" if paper else "")))


def escape(text: str) -> str:
    """What Markdown would take for a sign of its own."""
    for sign in ("\\", "|", "*", "_", "<", ">", "`", "[", "]"):
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")
