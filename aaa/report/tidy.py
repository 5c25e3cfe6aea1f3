"""A measured table as CSV: a line a cell, every figure in a column of its own, for pandas or R."""

from __future__ import annotations

import csv
import io
from typing import Any

from aaa.report.measured import FINISHED, STATUSES, Measured
from aaa.report.statistics import Comparison, spread
from aaa.report.wording import Wording


def records(wording: Wording) -> list[dict[str, Any]]:
    """A record a cell; None where there is nothing."""
    table, comparisons = wording.table, wording.comparisons
    return [
        _record(table, row.name, column.name, comparisons.get((row.name, column.name)))
        for row in table.rows
        for column in table.columns
    ]


def as_csv(wording: Wording) -> str:
    """The records as text; numbers in full precision."""
    lines = records(wording)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _record(
    table: Measured, row_name: str, column_name: str, comparison: Comparison | None
) -> dict[str, Any]:
    row, cell = table.row(row_name), table.cell(row_name, column_name)
    column = next(column for column in table.columns if column.name == column_name)
    record: dict[str, Any] = {
        "table": table.name,
        "scale": table.scale,
        "row": row.name,
        "label": row.label,
        "column": column.name,
        "metric": column.metric,
        "series": row.series,
        "x": row.x,
    }
    for quantity in table.quantities:
        found = spread(cell.values(quantity))
        record |= {
            f"{quantity}_mean": found.mean if found else None,
            f"{quantity}_sd": found.deviation if found else None,
            f"{quantity}_paper": cell.paper.get(quantity),
        }
    record |= {
        "n": len(cell.finished),
        "compared_with": row.compared_with,
        "difference": comparison.difference if comparison else None,
        "difference_paper": comparison.paper if comparison else None,
        "welch_p": comparison.p_value if comparison else None,
        "welch_p_adjusted": comparison.p_adjusted if comparison else None,
        "no_test_because": comparison.reason if comparison else None,
    }
    record |= {status: cell.count(status) for status in STATUSES if status != FINISHED}
    record["seeds"] = " ".join(str(run.seed) for run in cell.finished)
    record["run_ids"] = " ".join(str(run.run_id) for run in cell.finished)
    return record
