"""A measured table survives JSON; what is no measured table is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aaa.report.markdown import markdown
from aaa.report.measured import Cell, Run, load, save, to_json
from aaa.report.wording import Wording
from tests.report.fakes import table_4

KEPT = Path(__file__).parents[2] / "docs" / "results"


def test_json_gives_back_the_same_table(tmp_path: Path) -> None:
    table = table_4(seeds=2)
    cells = dict(table.cells)
    cells["full", "mnli"] = Cell((Run(0, "failed", "abc", note="Error: “x”"), Run(1, "missing")))
    table = replace(table, cells=cells, notes=("A note.",))
    again = load(save(table, tmp_path / "new" / "t.json"))
    assert json.dumps(to_json(again)) == json.dumps(to_json(table))
    assert again.rows == table.rows
    assert again.columns == table.columns
    assert again.cell("full", "mnli") == cells["full", "mnli"]
    assert again.cell("aaa_1", "rte").values("score") == table.cell("aaa_1", "rte").values("score")
    assert again.cell("full", "qqp").paper == {"rho": 0, "score": 88}  # a 0 is kept


def test_json_has_a_line_a_cell(tmp_path: Path) -> None:
    text = save(table_4(), tmp_path / "t.json").read_text()
    lines = [line for line in text.splitlines() if line.startswith('  {"row": ')]
    assert len(lines) == 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "no measured table of format 1"),
        ({"rows": []}, "there is no row or column for ('aaa_1'"),
        ({"colour": "red"}, "colour"),
        ({"quantities": ["rhoo"]}, "quantities are of rho, score"),
        ({"cells": [{"row": "full", "column": "rte", "runs": [{"status": "done"}]}]}, "'done'"),
        ({"cells": [{"row": "full"}]}, "column"),
    ],
)
def test_what_is_no_measured_table_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(to_json(table_4()) | change))
    with pytest.raises(ValueError, match="measured table") as error:
        load(path)
    assert said in str(error.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        load(tmp_path / "t.json")
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        load(tmp_path / "t.json")
    with pytest.raises(ValueError, match="is no JSON"):
        load(tmp_path)


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_kept_tables_can_still_be_shown(path: Path) -> None:
    measured = load(path)
    assert f"{measured.name}.{measured.scale}" == path.stem
    assert measured.title in markdown(Wording(measured))
