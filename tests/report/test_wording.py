"""What stands in a cell and below a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aaa.report.measured import Cell, Measured, Row, Run
from aaa.report.statistics import Comparison, Spread
from aaa.report.wording import Wording, arrow, mark, number, p_text, unique_labels
from tests.report.fakes import table_4

CELL = ("aaa_2", "rte")


def with_runs(*runs: Run) -> Measured:
    table = table_4()
    cells = dict(table.cells) | {CELL: replace(table.cells[CELL], runs=runs)}
    return replace(table, cells=cells)


def done(seed: int, score: float) -> Run:
    return Run(seed, "finished", f"r{seed}", {"score": score, "rho": 88.0 + seed})


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ((), "–"),
        ((Run(0, "missing"),), "–"),
        ((Run(0, "missing"), Run(1, "running")), "running"),
        ((Run(0, "running"), Run(1, "failed")), "failed"),
        ((Run(0, "refused", note="no"),), "refused"),
        ((Run(0, "interrupted"),), "interrupted"),
        ((Run(0, "needs", note="aaa pretrain pattern=full"),), "needs pre-training"),
        ((Run(0, "needs", note="data.parses=... on the command line"),), "needs data.parses"),
    ],
)
def test_a_cell_without_figures_says_what_became_of_it(runs: tuple[Run, ...], text: str) -> None:
    shown = Wording(with_runs(*runs)).cell(*CELL)
    assert shown.main_text == text
    assert shown.main.arrow == ""
    assert (shown.main.paper, shown.main.paper_arrow) == ("56", "= 0")


def test_a_cell_with_some_of_its_seeds_says_how_many_and_what_of_the_others() -> None:
    table = with_runs(done(0, 60), done(1, 61), Run(2, "failed", note="Error: x"))
    shown = Wording(table).cell(*CELL)
    assert shown.main.value == "60.5 ± 0.7"
    assert shown.note == "n=2, 1 failed"
    assert [part.value for part in shown.others] == ["88.5 ± 0.7"]


def test_marks_of_tests() -> None:
    row, column = table_4().rows[3], table_4().columns[0]

    def of(p: float | None, adjusted: float | None) -> str:
        return mark(Comparison(row, column, 1.0, None, p, adjusted))

    assert [of(0.01, 0.02), of(0.01, 0.2), of(0.06, 0.06), of(None, None)] == ["‡", "†", "", ""]


def test_numbers() -> None:
    assert number(Spread(79.149, 0.84, 3)) == "79.1 ± 0.8"
    assert number(Spread(79.149, None, 1)) == "79.1"
    assert number(Spread(69.0, 0.01, 3), hide_no_deviation=True) == "69.0"
    assert number(Spread(-0.04, 0.01, 3)) == "0.0 ± 0.0"
    assert number(Spread(-0.06, None, 1)) == "-0.1"
    assert number(None) == ""
    assert [arrow(5.15), arrow(-5.15), arrow(-0.04), arrow(4, 0)] == [
        "↑ 5.2", "↓ 5.2", "= 0.0", "↑ 4",
    ]  # fmt: skip
    assert [p_text(None), p_text(0.0004), p_text(0.0437)] == ["–", "< 0.001", "0.044"]


def test_an_arrow_is_the_difference_of_what_stands_beside_it() -> None:
    table = with_runs(done(0, 79.04))
    other = ("local2_global1_random1", "rte")
    cells = dict(table.cells) | {other: replace(table.cells[other], runs=(done(0, 78.96),))}
    wording = Wording(replace(table, cells=cells))
    shown = wording.cell(*CELL)
    assert (shown.main.value, shown.main.arrow, shown.is_best) == ("79.0", "= 0.0", True)
    assert wording.cell(*other).main.value == "79.0"
    assert wording.cell(*other).is_best


def test_the_papers_figures_are_as_it_prints_them() -> None:
    table = table_4()
    places = {("full", "rte"): 62.8, ("local2_global2", "rte"): 50.0, ("aaa_1", "rte"): 52.5}
    cells = dict(table.cells) | {
        place: replace(table.cells[place], paper={"score": score})
        for place, score in places.items()
    }
    wording = Wording(replace(table, cells=cells))
    assert wording.cell("full", "rte").main.paper == "62.8"
    assert wording.cell("aaa_1", "rte").main.paper_arrow == "↑ 2.5"
    assert wording.cell("aaa_1", "stsb").main.paper_arrow == "↑ 37"


def test_rows_of_one_label_say_what_they_are_compared_with() -> None:
    labels = unique_labels(table_4().rows)
    assert labels["aaa_1"] == "AAA (to Local₂ + Global₂)"
    assert labels["full"] == "Full"


def test_the_legend_explains_what_is_there_and_what_is_missing() -> None:
    failed = Run(0, "failed", note="RuntimeError: out of memory")
    text = "\n".join(Wording(with_runs(failed, done(1, 50), done(2, 51))).legend())
    for part in (
        "mean ± standard deviation over 3 seeds",
        "difference to the row compared with (AAA: Local₂ + Global₂, Local₂ + Global₁",
        "Welch's t-test",
        "over all 23 tests",
        "No test of 1 of 24 differences: n = 2 is too small",
        "191 of 192 runs are finished, failed: 1.",
        "failed: AAA (to Local₂ + Global₁ + Random₁), RTE, seed 0: RuntimeError: out of memory",
    ):
        assert part in text


def test_the_legend_has_errors_in_a_few_words() -> None:
    """Without all names that are known; what is needed is a command, and whole."""
    command = f"aaa pretrain data.path={'/folder' * 30}"
    runs = (
        Run(0, "refused", note="pattern 'aa' is unknown, did you mean aaa? known: aaa, full"),
        Run(1, "failed", note=f"RuntimeError: {'no luck ' * 60}"),
        Run(2, "needs", note=command),
    )
    legend = Wording(with_runs(*runs)).legend()
    assert legend[-3].endswith("seed 0: pattern 'aa' is unknown, did you mean aaa?")
    assert legend[-2].endswith("no luck …")
    assert len(legend[-2]) < 250
    assert legend[-1].endswith(command)


def test_the_legend_of_a_single_seed_speaks_of_no_deviation() -> None:
    text = "\n".join(Wording(table_4(seeds=1)).legend())
    assert "one seed" in text
    assert "±" not in text
    assert "No test of 24 of 24 differences: n = 1 is too small" in text
    assert "Welch" not in text


def test_one_row_that_all_are_compared_with_is_named_once() -> None:
    rows = (Row("full", "Full"), Row("a", "A", "full"), Row("b", "B", "full"))
    table = replace(table_4(), rows=rows, cells={})
    assert "↑ ↓: difference to Full." in Wording(table).legend()


def test_a_quoted_row_says_whose_figures_they_are() -> None:
    rows = (Row("x", "X", quoted="Tay et al. (2021)"),)
    table = replace(table_4(), rows=rows, cells={("x", "rte"): Cell(paper={"score": 65.9})})
    assert "X: quoted from Tay et al. (2021), not measured here." in Wording(table).legend()


def test_a_table_without_scores_names_its_quantities() -> None:
    cell = Cell((Run(0, "finished", "r", {"row_share": 0.8, "column_share": 1.6}),))
    table = Measured(
        "table_6", "Table 6", (Row("aaa", "AAA"),), table_4().columns[:1], {("aaa", "mnli"): cell},
        quantities=("row_share", "column_share"),
    )  # fmt: skip
    shown = Wording(table).cell("aaa", "mnli")
    assert shown.main_text == "rows 0.8"
    assert [(part.name, part.value) for part in shown.others] == [("columns", "1.6")]
    assert Wording(table).legend()[0] == "rows and columns in percent; one seed."
