"""The dashboard is made of what runs log, and W&B's own package takes it; nothing is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

dashboard = pytest.importorskip(
    "scripts.wandb_dashboard", reason="needs wandb-workspaces", exc_type=ImportError
)

# What runs and tables log, read back in test_tracking and report/test_main.
MEDIA = {"layers", "masks/0", "masks/1", "course", "page"}
METRICS = {
    "train/rho", "train/target", "train/alpha", "train/gap", "train/loss",
    "train/examples_per_second", "validation/rho",
    "validation/matthews", "validation/spearman", "validation/f1", "validation/accuracy",
}  # fmt: skip


@pytest.fixture(scope="module")
def workspace() -> dict[str, Any]:
    """As it would be sent."""
    return dict(json.loads(dashboard.workspace("me", "p")._to_model().model_dump_json()))


def values(node: Any, key: str) -> list[Any]:
    """Everything that stands under a key, at any depth."""
    found = []
    if isinstance(node, dict):
        found += [node[key]] if key in node else []
        found += [value for child in node.values() for value in values(child, key)]
    elif isinstance(node, list):
        found += [value for child in node for value in values(child, key)]
    return found


def test_panels_show_what_runs_log(workspace: dict[str, Any]) -> None:
    shown = {name for names in values(workspace, "metrics") for name in names or ()}
    assert shown - {"summary_metrics.score"} <= METRICS
    assert {key for keys in values(workspace, "media_keys") for key in keys or ()} == MEDIA
    assert values(workspace, "metric_regex") != []


def test_score_is_over_rho_and_runs_are_coloured_by_pattern(workspace: dict[str, Any]) -> None:
    [scatter] = [c for c in values(workspace, "config") if c and c.get("y_axis")]
    assert (scatter["x_axis"], scatter["y_axis"]) == ("summary:rho", "summary:score")
    groups = json.dumps(values(workspace, "grouping"))
    assert "names.value.pattern" in groups


def test_a_section_for_each_question() -> None:
    names = [section.name for section in dashboard.sections()]
    assert names == list(dashboard.TEXTS)


def test_the_report_has_the_same_panels_with_words(capsys: pytest.CaptureFixture[str]) -> None:
    report = dashboard.report("me", "p", look_up=False)
    grids = [block for block in report.blocks if type(block).__name__ == "PanelGrid"]
    assert [len(grid.panels) for grid in grids] == [len(s.panels) for s in dashboard.sections()]
    assert dashboard.main(["--entity", "me", "--dry-run"]) == 0
    assert "Sparse attention" in capsys.readouterr().out


def test_without_a_login_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise dashboard.Error("No API key configured.")

    monkeypatch.setattr(dashboard, "report", refuse)
    assert dashboard.main(["--entity", "me"]) == 2
    said = capsys.readouterr().err
    assert said == "wandb_dashboard: No API key configured. (wandb login, or --dry-run)\n"
