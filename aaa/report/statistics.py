"""What the figures of a measured table say: mean and spread over seeds, differences, tests.

Two tests are made where a row is compared with another:

- **a cell against the cell of the other row**: Welch's t-test over the seeds, two-sided. It
  assumes neither equal variances nor that seeds pair up (the same seed draws different noise under
  different patterns). At least MIN_SEEDS seeds on both sides.
- **a row against the other row**: Wilcoxon's signed-rank test over the columns' mean scores
  (Demšar 2006), two-sided. At least MIN_COLUMNS columns, below which no outcome could reach 5 %.

So many cells are tested that some differ by chance. p-values are therefore also given adjusted for
the false discovery rate over the whole table (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aaa.report.measured import Column, Measured, Row

MIN_SEEDS = 3
MIN_COLUMNS = 6  # with 5, the smallest two-sided p is 2 / 2^5 > 0.05
LEVEL = 0.05
DIGITS = 1  # of scores and percentages as shown


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value) of n values."""

    mean: float
    deviation: float | None
    n: int


def shown(value: float) -> float:
    """A score or percentage as it is shown; what rounds to nothing has no sign."""
    return round(value, DIGITS) + 0.0


def spread(values: Sequence[float]) -> Spread | None:
    """Of at least one value; None for none."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


@dataclass(frozen=True)
class Comparison:
    """A cell against the cell of the row that its row is compared with.

    Args:
        difference: of the means; None if one is missing.
        paper: of the paper's figures.
        p_value, p_adjusted: of Welch's test, alone and over the table; None if it wasn't made.
        reason: why it was not.
        shown: of the means as they are shown: what arrows, wins and their mean are of.
    """

    row: Row
    column: Column
    difference: float | None
    paper: float | None
    p_value: float | None = None
    p_adjusted: float | None = None
    reason: str = ""
    shown: float | None = None


@dataclass(frozen=True)
class RowComparison:
    """A row against the row that it is compared with, over all columns measured in both.

    What is won and by how much goes by the figures as shown, as what is bold does; the test does
    not.
    """

    row: Row
    other: Row
    wins: int
    ties: int
    losses: int
    mean_difference: float
    paper_wins: int
    paper_columns: int
    p_value: float | None = None
    reason: str = ""


def compare(table: Measured) -> dict[tuple[str, str], Comparison]:
    """Every cell of a compared row against its counterpart, by (row, column)."""
    found = {
        (row.name, column.name): _compare(table, row, column)
        for row in table.rows
        if row.compared_with is not None
        for column in table.columns
    }
    tested = {place: c.p_value for place, c in found.items() if c.p_value is not None}
    if tested:
        from scipy.stats import false_discovery_control

        adjusted = false_discovery_control(list(tested.values()), method="bh")
        for place, value in zip(tested, adjusted, strict=True):
            found[place] = replace(found[place], p_adjusted=float(value))
    return found


def compare_rows(
    table: Measured, cells: Mapping[tuple[str, str], Comparison]
) -> list[RowComparison]:
    """Every compared row against its counterpart, where any column is measured in both.

    Args:
        cells: what ``compare`` says of the table.
    """
    compared = []
    for row in table.rows:
        if row.compared_with is None:
            continue
        of_row = [cells[row.name, column.name] for column in table.columns]
        differences = [c.difference for c in of_row if c.difference is not None]
        paper = [c.paper for c in of_row if c.paper is not None]
        if not differences:
            continue
        p_value, reason = _signed_rank(differences)
        as_shown = [c.shown for c in of_row if c.shown is not None]
        compared.append(
            RowComparison(
                row, table.row(row.compared_with),
                wins=sum(difference > 0 for difference in as_shown), ties=as_shown.count(0.0),
                losses=sum(difference < 0 for difference in as_shown),
                mean_difference=statistics.fmean(as_shown),
                paper_wins=sum(difference > 0 for difference in paper), paper_columns=len(paper),
                p_value=p_value, reason=reason,
            )
        )  # fmt: skip
    return compared


def best(table: Measured) -> set[tuple[str, str]]:
    """The cells with the highest mean of their block and column, ties as shown included.

    Of blocks in which rows are compared; where only one of them is measured, there is nothing to
    be best of.
    """
    found = set()
    compared = table.compared_rows
    for block in table.blocks():
        if not compared & {row.name for row in block}:
            continue
        for column in table.columns:
            means = {
                row.name: shown(measured.mean)
                for row in block
                if (measured := spread(table.cell(row.name, column.name).values(table.main)))
            }
            if len(means) > 1:
                highest = max(means.values())
                found |= {(name, column.name) for name, mean in means.items() if mean == highest}
    return found


def _compare(table: Measured, row: Row, column: Column) -> Comparison:
    assert row.compared_with is not None
    cell, other = table.cell(row.name, column.name), table.cell(row.compared_with, column.name)
    ours, theirs = cell.values(table.main), other.values(table.main)
    paper = None
    if table.main in cell.paper and table.main in other.paper:
        paper = cell.paper[table.main] - other.paper[table.main]
    if not ours or not theirs:
        return Comparison(row, column, None, paper, reason="not measured yet")
    means = statistics.fmean(ours), statistics.fmean(theirs)
    p_value, reason = _welch(ours, theirs)
    return Comparison(
        row, column, means[0] - means[1], paper, p_value, reason=reason,
        shown=shown(shown(means[0]) - shown(means[1])),
    )  # fmt: skip


def _welch(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float | None, str]:
    fewest = min(len(ours), len(theirs))
    if fewest < MIN_SEEDS:
        return None, f"n = {fewest} is too small, it needs {MIN_SEEDS} seeds"
    if len({*ours}) == len({*theirs}) == 1:
        return None, "no spread over seeds"
    from scipy.stats import ttest_ind  # half a second to import

    with warnings.catch_warnings():  # of a side without spread
        warnings.simplefilter("ignore")
        return float(ttest_ind(ours, theirs, equal_var=False).pvalue), ""


def _signed_rank(differences: Sequence[float]) -> tuple[float | None, str]:
    if len(differences) < MIN_COLUMNS:
        return None, f"it needs {MIN_COLUMNS} columns and has {len(differences)}"
    if not any(differences):
        return None, "no difference in any column"
    from scipy.stats import wilcoxon

    with warnings.catch_warnings():  # with ties it falls back to a normal approximation, loudly
        warnings.simplefilter("ignore")
        return float(wilcoxon(differences).pvalue), ""
