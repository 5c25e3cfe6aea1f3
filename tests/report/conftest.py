"""A table with a cell of every kind, and what is made of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from aaa.report.charts import charts
from aaa.report.measured import Measured, Run
from aaa.report.wording import Wording
from tests.report.fakes import table_4


@pytest.fixture(scope="module")
def table() -> Measured:
    """Table 4 with a cell of every kind in its last column."""
    made = table_4()
    cells = dict(made.cells)
    for row, runs in {
        "full": (Run(0, "failed", note="Error: <script>alert(1)</script> & 100 % of a_b"),),
        "local2_global2": (Run(0, "running"),),
        "aaa_1": (Run(0, "needs", note="aaa pretrain pattern=full"),),
        "aaa_2": (*cells["aaa_2", "rte"].runs[:2], Run(2, "interrupted")),
        "aaa_3": (),
    }.items():
        cells[row, "rte"] = replace(cells[row, "rte"], runs=runs)
    return replace(made, cells=cells)


@pytest.fixture(scope="module")
def wording(table: Measured) -> Wording:
    return Wording(table)


@pytest.fixture(scope="module")
def figures(table: Measured) -> dict[str, Figure]:
    return charts(table)
