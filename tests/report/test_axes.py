"""Table 6 from results: percentages, counts and tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aaa.report.axes import (
    axes_lines,
    axes_markdown,
    axes_title,
    has_axes,
    show_axes,
    token_lines,
)
from aaa.report.main import main


def result(**changes: Any) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "run_id": "abc", "cell_id": "abc", "status": "finished", "task": "rte", "pattern": "aaa",
        "model": "tiny", "seed": 3, "score": 60.0, "sparsity": 0.7, "sparsity_target": 0.7,
        "config": {"pattern": {}, "training": {}, "data": {}, "sparsity": {}},
        "sparsity_per_layer": [0.6, 0.8],
        "row_share": [0.008, None], "row_count": [0.4, None],
        "column_share": [0.02, 0.04], "column_count": [1.0, 2.0],
        "chosen_tokens": {
            "rows": [{"token": "[CLS]", "chosen": 0.25, "occurrences": 40}],
            "columns": [
                {"token": "|", "chosen": 1.0, "occurrences": 4},
                {"token": "not", "chosen": 0.5, "occurrences": 3},
            ],
        },
    }  # fmt: skip
    return figures | changes


def test_each_layer_and_the_mean_of_those_that_have_it() -> None:
    assert axes_lines(result()) == [
        ["0", "60.0", "0.8", "0.4", "2.0", "1.0"],
        ["1", "80.0", "–", "–", "4.0", "2.0"],
        ["all", "70.0", "0.8", "0.4", "3.0", "1.5"],
    ]


def test_no_layer_with_rows() -> None:
    lines = axes_lines(result(row_share=[None, None], row_count=[None, None]))
    assert [line[2] for line in lines] == ["–", "–", "–"]


def test_tokens_of_rows_beside_those_of_columns() -> None:
    assert token_lines(result()) == [
        ["[CLS]", "25.0", "40", "|", "100.0", "4"],
        ["", "", "", "not", "50.0", "3"],
    ]
    assert token_lines(result(chosen_tokens={"rows": [], "columns": []})) == []


def test_markdown_has_both_tables_and_no_broken_cell() -> None:
    text = axes_markdown(result())
    assert text.startswith("**rte · aaa · tiny · seed 3 · development set**\n\n| layer |")
    assert r"| \| | 100.0 | 4 |" in text


def test_whose_figures_they_are_names_the_split(capsys: pytest.CaptureFixture[str]) -> None:
    assert axes_title(result(split="validation")).endswith("seed 3 · development set")
    show_axes(result(split="test"), Console(width=200))
    shown = capsys.readouterr().out
    assert shown.count("seed 3 · test split") == 2
    assert "development" not in shown


def write(folder: Path, figures: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(figures))


def test_command_shows_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = result(run_id="def", pattern="local2")
    del fixed["chosen_tokens"]
    assert not has_axes(fixed)
    write(tmp_path / "abc", result())
    write(tmp_path / "def", fixed)
    runs = [str(tmp_path / "abc"), str(tmp_path / "def")]
    assert main([*runs, "--statistics", "--to", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "[CLS]" in shown
    assert "rows a text" in shown
    assert "local2" not in shown
    assert (tmp_path / "out" / "statistics.md").read_text() == axes_markdown(result())
    with pytest.raises(ValueError, match="none of these runs has a learned pattern"):
        main([str(tmp_path / "def"), "--statistics"])
