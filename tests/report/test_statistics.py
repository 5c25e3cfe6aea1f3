"""Means, differences and tests against closed forms and scipy, and when there is no test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import t as student

from aaa.report.measured import Cell, Column, Measured, Row, Run
from aaa.report.statistics import best, compare, compare_rows, spread
from tests.report.fakes import table_4

Scores = Sequence[float]


def two_rows(
    *columns: tuple[Scores, Scores], paper: tuple[float, float] | None = None
) -> Measured:
    """A row compared with another: in each column the scores of the seeds of both."""
    names = [f"c{number}" for number in range(len(columns))]
    stated = paper or ()
    cells = {
        (row, name): Cell(
            tuple(
                Run(seed, "finished", figures={"score": score})
                for seed, score in enumerate(scores)
            ),
            {"score": stated[place]} if stated else {},
        )
        for name, both in zip(names, columns, strict=True)
        for place, (row, scores) in enumerate(zip(("fixed", "aaa"), both, strict=True))
    }
    rows = (Row("fixed", "Fixed"), Row("aaa", "AAA", "fixed", learned=True))
    return Measured("t", "T", rows, tuple(Column(n, n) for n in names), cells)


def test_spread_is_the_mean_and_the_sample_standard_deviation() -> None:
    values = [70.0, 74.5, 71.2]
    found = spread(values)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert found.n == 3


def test_spread_of_one_value_and_of_none() -> None:
    one = spread([5.0])
    assert one is not None
    assert (one.mean, one.deviation, one.n) == (5.0, None, 1)
    assert spread([]) is None


def test_welch_by_hand() -> None:
    fixed, ours = [60.0, 61.0, 62.5], [64.0, 64.5, 66.0, 63.0]
    cell = compare(two_rows((fixed, ours)))["aaa", "c0"]
    errors = [np.var(values, ddof=1) / len(values) for values in (fixed, ours)]
    statistic = (np.mean(ours) - np.mean(fixed)) / math.sqrt(sum(errors))
    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(values) - 1) for error, values in zip(errors, (fixed, ours), strict=True)
    )
    assert cell.difference == pytest.approx(np.mean(ours) - np.mean(fixed))
    assert cell.p_value == pytest.approx(2 * student.sf(abs(statistic), freedom))
    assert cell.p_adjusted == pytest.approx(cell.p_value)  # the only test


def test_adjusted_values_are_benjamini_and_hochbergs() -> None:
    cells = compare(table_4(seeds=4))
    tested = sorted((c.p_value, c.p_adjusted) for c in cells.values() if c.p_value is not None)
    assert len(tested) == 24
    raw = [p for p, _ in tested]
    expected = [
        min(1.0, *(p * len(raw) / (rank + 1) for rank, p in enumerate(raw) if rank >= place))
        for place in range(len(raw))
    ]
    assert [adjusted for _, adjusted in tested] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("fixed", "ours", "reason"),
    [
        ([1.0, 2.0], [3.0, 4.0, 5.0], "n = 2 is too small, it needs 3 seeds"),
        ([1.0], [3.0], "n = 1 is too small"),
        ([1.0] * 3, [1.0] * 3, "no spread over seeds"),
        ([], [1.0], "not measured yet"),
    ],
)
def test_no_test_says_why(fixed: Scores, ours: Scores, reason: str) -> None:
    cell = compare(two_rows((fixed, ours)))["aaa", "c0"]
    assert cell.p_value is None
    assert cell.p_adjusted is None
    assert reason in cell.reason


def test_one_side_without_spread_is_tested() -> None:
    cell = compare(two_rows(([50.0] * 3, [60.0, 61.0, 62.0])))["aaa", "c0"]
    assert cell.p_value is not None
    assert cell.p_value < 0.01


def test_the_papers_difference_is_that_of_its_figures() -> None:
    table = two_rows(([1.0], [2.0]), paper=(77, 81))
    assert compare(table)["aaa", "c0"].paper == 4
    cells = compare(table_4())
    assert cells["aaa_1", "stsb"].paper == 37
    assert cells["aaa_2", "mrpc"].paper == -2


def test_rows_are_compared_over_columns() -> None:
    table = two_rows(([50.0], [55.0]), ([50.0], [50.04]), ([50.0], [48.0]), paper=(70, 71))
    [row] = compare_rows(table, compare(table))
    assert (row.wins, row.ties, row.losses) == (1, 1, 1)  # 0.04 rounds to nothing
    assert row.mean_difference == pytest.approx((5 + 0 - 2) / 3)
    assert (row.paper_wins, row.paper_columns) == (3, 3)
    assert row.p_value is None
    assert "needs 6 columns and has 3" in row.reason


@pytest.mark.parametrize(
    ("fixed", "ours", "difference"),
    [(78.96, 79.04, 0.0), (78.94, 78.96, 0.1), (79.16, 78.84, -0.4), (-0.04, 0.04, 0.0)],
)
def test_bold_arrows_and_wins_are_of_the_figures_as_shown(
    fixed: float, ours: float, difference: float
) -> None:
    table = two_rows(([fixed], [ours]))
    cells = compare(table)
    cell = cells["aaa", "c0"]
    assert cell.difference == ours - fixed
    assert cell.shown == difference
    [row] = compare_rows(table, cells)
    assert (row.wins, row.ties) == (int(difference > 0), int(difference == 0))
    assert row.mean_difference == difference
    assert (("aaa", "c0") in best(table)) == (difference >= 0)
    assert (("fixed", "c0") in best(table)) == (difference <= 0)


def test_the_signed_rank_test_has_its_exact_value() -> None:
    """All of n differences up: the two-sided p is 2 / 2^n."""
    for n in (6, 8):
        table = two_rows(*(([50.0], [51.0 + 0.1 * place]) for place in range(n)))
        [row] = compare_rows(table, compare(table))
        assert row.p_value == pytest.approx(2 / 2**n)


def test_no_difference_anywhere_is_no_test() -> None:
    table = two_rows(*[([50.0], [50.0])] * 6)
    [row] = compare_rows(table, compare(table))
    assert row.p_value is None
    assert row.reason == "no difference in any column"


def test_best_is_that_of_a_block_and_ties_share_it() -> None:
    assert best(two_rows(([50.0], [55.0]))) == {("aaa", "c0")}
    assert best(two_rows(([50.0], [50.01]))) == {("aaa", "c0"), ("fixed", "c0")}
    assert best(two_rows(([], [50.0]))) == set()
    table = table_4()
    assert not any(row == "full" for row, _ in best(table))  # a block of its own
    without = replace(table, rows=tuple(replace(row, compared_with=None) for row in table.rows))
    assert best(without) == set()


def test_blocks_are_what_is_compared_and_what_lies_between() -> None:
    names = [[row.name for row in block] for block in table_4().blocks()]
    assert names[0] == ["full"]
    assert names[1] == ["local2_global2", "local3_global1", "aaa_1"]
    assert [len(block) for block in names] == [1, 3, 2, 2]


def test_a_chain_of_comparisons_is_one_block() -> None:
    rows = [Row("a", "A"), Row("b", "B"), Row("c", "C")]
    chained = [
        rows[0],
        *(replace(row, compared_with=before.name) for before, row in pairwise(rows)),
    ]
    assert len(Measured("t", "T", tuple(chained), (), {}).blocks()) == 1


def test_comparisons_that_cross_are_one_block_wherever_they_point() -> None:
    rows = (Row("c", "C"), Row("a", "A", "d"), Row("b", "B", "c"), Row("d", "D"), Row("e", "E"))
    table = Measured("t", "T", rows, (Column("x", "X"),), {})
    assert [[row.name for row in block] for block in table.blocks()] == [
        ["c", "a", "b", "d"], ["e"]
    ]  # fmt: skip
    scores = {"c": 50.0, "a": 51.0, "b": 52.0, "d": 53.0}
    cells = {
        (name, "x"): Cell((Run(0, "finished", figures={"score": score}),))
        for name, score in scores.items()
    }
    assert best(replace(table, cells=cells)) == {("d", "x")}


def test_rows_of_one_series_without_comparisons_are_one_block() -> None:
    rows = tuple(Row(f"{s}{x}", "", series=s, x=x) for s in "ab" for x in (1, 2))
    assert [len(block) for block in Measured("t", "T", rows, (), {}).blocks()] == [2, 2]
