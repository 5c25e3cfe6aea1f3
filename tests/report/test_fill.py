"""Tables put together from what was measured in several places."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aaa.report.fill import fill, of_other_settings
from aaa.report.measured import MISSING, Cell, Measured, Run
from tests.report.fakes import table_4

PLACE = ("aaa_1", "stsb")


def with_runs(table: Measured, *runs: Run, **facts: tuple[str, ...]) -> Measured:
    """One cell has these runs, and nothing else of the table is measured."""
    cells = {place: replace(cell, runs=()) for place, cell in table.cells.items()}
    cells[PLACE] = Cell(runs, table.cell(*PLACE).paper)
    return replace(table, cells=cells, facts=facts)


def finished(seed: int, score: float) -> Run:
    return Run(seed, "finished", f"run{score}", {"score": score, "rho": 70.0})


def test_kept_runs_stand_in_for_what_is_missing_and_for_nothing_else() -> None:
    here = with_runs(
        table_4(), finished(0, 1.0), Run(1, MISSING), Run(2, "failed", note="no"), commit=("a",)
    )
    kept = with_runs(table_4(), finished(0, 9.0), finished(1, 9.1), Run(2, "failed"))
    kept = replace(kept, facts={"commit": ("b", "a"), "device": ("cpu",)})
    filled = fill(here, kept)
    assert filled.cell(*PLACE).values("score") == [1.0, 9.1]
    assert [run.status for run in filled.cell(*PLACE).runs] == ["finished", "finished", "failed"]
    assert filled.cell(*PLACE).paper == here.cell(*PLACE).paper != {}
    assert filled.facts == {"commit": ("a", "b"), "device": ("cpu",)}
    assert here.cell(*PLACE).values("score") == [1.0]


def test_nothing_is_said_of_a_kept_table_that_fills_nothing() -> None:
    here = with_runs(table_4(), finished(0, 1.0), commit=("a",))
    kept = with_runs(table_4(), finished(0, 9.0), commit=("b",), device=("cpu",))
    assert fill(here, kept).facts == {"commit": ("a",)}


def test_seeds_that_are_not_asked_for_here_come_along() -> None:
    here = with_runs(table_4(), finished(1, 1.0))
    filled = fill(here, with_runs(table_4(), finished(0, 2.0), finished(4, 3.0)))
    assert filled.cell(*PLACE).values("score") == [2.0, 1.0, 3.0]


def test_runs_of_other_settings_are_left_out_and_named() -> None:
    here = with_runs(
        table_4(), Run(0, MISSING, "now"), Run(1, MISSING, "run2.0"), finished(2, 5.0)
    )
    kept = with_runs(table_4(), finished(0, 1.0), finished(1, 2.0), finished(2, 3.0))
    filled = fill(here, kept).cell(*PLACE)
    assert [(run.seed, run.status) for run in filled.runs] == [
        (0, "missing"), (1, "finished"), (2, "finished"),
    ]  # fmt: skip
    assert filled.values("score") == [2.0, 5.0]
    assert of_other_settings(here, kept) == ["aaa_1 · stsb · seed 0"]
    assert of_other_settings(with_runs(table_4(), Run(0, MISSING)), kept) == []


def test_rows_that_are_not_there_are_left_out() -> None:
    kept = table_4()
    here = replace(with_runs(kept), rows=kept.rows[:2], cells={})
    assert {row for row, _ in fill(here, kept).cells} == {row.name for row in here.rows}


@pytest.mark.parametrize("changes", [{"name": "table_5"}, {"scale": "paper"}])
def test_another_table_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"at scale \w+ cannot fill table_4 at scale small"):
        fill(table_4(), replace(table_4(), **changes))  # type: ignore[arg-type]
