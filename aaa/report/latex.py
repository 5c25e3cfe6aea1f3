"""A measured table as LaTeX with booktabs, ready to paste."""

from __future__ import annotations

import re
from collections.abc import Callable

from aaa.report.latex_text import escape
from aaa.report.measured import QUANTITIES, Measured
from aaa.report.wording import Part, Shown, Wording

PACKAGES = "% needs \\usepackage{booktabs,graphicx}\n"
# How wide a table is, LaTeX alone knows: it is shrunk to the text's width if it is wider.
FITTED = "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}"


def latex(wording: Wording) -> str:
    """A ``table*`` environment with caption and label."""
    table = wording.table
    per_column = len(table.quantities)
    tabular = "\n".join(
        [
            f"\\begin{{tabular}}{{l{'r' * per_column * len(table.columns)}}}",
            "\\toprule",
            _heads(table),
            "\\midrule",
            "\n\\midrule\n".join(
                "\n".join(_line(wording, row.name, row.label) for row in block)
                for block in table.blocks()
            ),
            "\\bottomrule",
            "\\end{tabular}",
        ]
    )
    legend = [f"{wording.title}.", *wording.legend()]
    return (
        f"{PACKAGES}\\begin{{table*}}\n\\centering\n{FITTED}{{%\n{tabular}}}\n"
        f"\\caption{{{escape(' '.join(legend))}}}\n"
        f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', table.name)}}}\n\\end{{table*}}\n"
    )


def _heads(table: Measured) -> str:
    """Tasks with their metrics, and below them the quantities if there are several."""
    width = len(table.quantities)
    labels = [
        escape(f"{column.label}, {column.metric}" if column.metric else column.label)
        for column in table.columns
    ]
    if width == 1:
        return f" & {' & '.join(labels)} \\\\"
    spans = [f"\\multicolumn{{{width}}}{{c}}{{{label}}}" for label in labels]
    rules = [
        f"\\cmidrule(lr){{{2 + width * place}-{1 + width * (place + 1)}}}"
        for place in range(len(labels))
    ]
    names = [escape(QUANTITIES[quantity]) for quantity in table.quantities] * len(labels)
    return f" & {' & '.join(spans)} \\\\\n{''.join(rules)}\n & {' & '.join(names)} \\\\"


def _line(wording: Wording, name: str, label: str) -> str:
    """A row's line, and below it the paper's where it has figures.

    Lines begin with {}: the line's end before them would take "[" or "*" for its own argument.
    """
    cells = [wording.cell(name, column.name) for column in wording.table.columns]
    lines = [[escape(label), *(text for cell in cells for text in map(_ours(cell), cell.parts))]]
    if any(part.paper for cell in cells for part in cell.parts):
        lines.append(
            ["\\quad\\scriptsize the paper", *(_paper(p) for c in cells for p in c.parts)]
        )
    return "\n".join(f"{{}}{' & '.join(line)} \\\\" for line in lines)


def _ours(shown: Shown) -> Callable[[Part], str]:
    def text(part: Part) -> str:
        is_main = part is shown.main
        if not part.value:
            return f"\\textit{{{escape(shown.state)}}}" if is_main else ""
        mean, _, deviation = _signed(part.value).partition(" ± ")
        value = f"\\textbf{{{mean}}}" if is_main and shown.is_best else mean
        small = f"$\\pm${deviation}" if deviation else ""
        small += f" {escape(part.arrow.replace(' ', ''))}" if part.arrow else ""
        small += f" \\textit{{{escape(shown.note)}}}" if is_main and shown.note else ""
        return f"{value}\\,{{\\scriptsize {small.strip()}}}" if small else value

    return text


def _paper(part: Part) -> str:
    figures = "".join(filter(None, (part.paper, part.paper_arrow.replace(" ", ""))))
    return f"\\scriptsize {_signed(escape(figures))}" if figures else ""


def _signed(figures: str) -> str:
    """Figures with a minus where they have a hyphen."""
    return figures.replace("-", "$-$")
