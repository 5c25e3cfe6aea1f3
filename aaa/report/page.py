"""A measured table as one HTML page that needs nothing besides itself."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from aaa.report.measured import FINISHED, QUANTITIES, SCORE, Measured, Run
from aaa.report.wording import WORDS, Wording, p_text, row_verdict, unique_labels

# What is said of each picture, above it and to those who cannot see it.
CAPTIONS = {
    "score-against-rho": (
        "Score against sparsity",
        "Each row's mean score over its mean ρ, bars one standard deviation over seeds; lines "
        "join a row to the one that it is compared with. Lines across: full attention.",
    ),
    "lines": ("The figure", "Mean over seeds, bars one standard deviation."),
    "bars": ("Side by side", "Mean over seeds, bars one standard deviation."),
    "differences": (
        "Differences to the paper",
        "Ours minus the paper's, in points; the darker, the further apart.",
    ),
    "learning-curves": (
        "Learning curves",
        "The score on the development set over training, mean over seeds.",
    ),
    "loss-curves": (
        "Loss over training",
        "The loss of the training batches, mean over stretches of steps and over seeds. There was "
        "no evaluation before the last.",
    ),
}


def page(wording: Wording, pictures: Mapping[str, str]) -> str:
    """The page, with pictures in it: SVG by the names of CAPTIONS."""
    table, verdicts = wording.table, wording.verdicts
    environment = Environment(
        loader=PackageLoader("aaa.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        table=table,
        title=wording.title,
        quantities=QUANTITIES,
        cell=wording.cell,
        legend=wording.legend(),
        verdicts=[
            (v.row.label, v.other.label, row_verdict(v), p_text(v.p_value), v) for v in verdicts
        ],
        verdict_reasons=list(dict.fromkeys(v.reason for v in verdicts if v.reason)),
        pictures=[(*CAPTIONS[name], _data_uri(svg)) for name, svg in pictures.items()],
        runs=_runs(table),
        run_details=lambda row, column: _details(table, row, column),
    )


def _details(table: Measured, row: str, column: str) -> str:
    """What appears when one points at a cell: every seed."""
    lines = []
    for run in table.cell(row, column).runs:
        figures = _figures(run, table.quantities)
        what = figures if run.status == FINISHED else WORDS[run.status]
        lines.append(" · ".join(filter(None, (f"seed {run.seed}", what, run.run_id, run.note))))
    return "\n".join(lines)


def _runs(table: Measured) -> list[dict[str, str]]:
    labels = unique_labels(table.rows)
    return [
        {
            "row": labels[row.name],
            "column": column.label,
            "seed": str(run.seed),
            "status": WORDS.get(run.status, run.status),
            "figures": _figures(run, dict.fromkeys((SCORE, *table.quantities))),
            "run": run.run_id or "",
            "note": run.note,
        }
        for row, column, run in table.runs()
    ]


def _figures(run: Run, quantities: Iterable[str]) -> str:
    """Of one run, more precisely than in a cell; what rounds to nothing has no sign."""
    return ", ".join(
        f"{QUANTITIES[quantity]} {round(run.figures[quantity], 2) + 0.0:.2f}"
        for quantity in quantities
        if quantity in run.figures
    )


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
