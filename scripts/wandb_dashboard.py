"""W&B's workspace and report over this project's runs: score, ρ, α and layers at a glance.

python scripts/wandb_dashboard.py --entity NAME [--project NAME]  # makes both, prints their URLs
python scripts/wandb_dashboard.py --entity NAME --dry-run         # prints what would be made

Needs pip install '.[dashboard]', and wandb login (not for --dry-run).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb.errors import Error

PROJECT = "adaptive-axis-attention"
STEP = "trainer/global_step"

# The headline metrics of the tasks; a run has one or two of them.
SCORES = ("matthews", "spearman", "f1", "accuracy")


def sections() -> list[ws.Section]:
    """The panels, from what one looks for first."""
    return [
        ws.Section(
            name="Score against sparsity", panels=[score_against_rho(), score_by_row()],
            is_open=True,
        ),
        ws.Section(
            name="How ρ gets to its target",
            panels=[
                rho_over_steps(), alpha_over_steps(), gap_over_steps(), loss_over_steps(),
                speed_over_steps(),
            ],
            is_open=True,
        ),
        ws.Section(name="Scores over training", panels=score_curves(), is_open=True),
        ws.Section(
            name="Layers", panels=[layer_maps(), rho_of_layers(), rows_and_columns()], is_open=True
        ),
        ws.Section(name="Masks", panels=[masks(), courses()], is_open=True),
        ws.Section(name="Tables", panels=[table(), table_page()], is_open=True),
    ]  # fmt: skip


def score_against_rho() -> wr.ScatterPlot:
    """A point a run; the run set's grouping by pattern gives each pattern a colour."""
    return wr.ScatterPlot(
        title="score over ρ", x=wr.SummaryMetric("rho"), y=wr.SummaryMetric("score"),
        legend_template="${config:names.pattern} · ${config:names.task}",
        layout=wr.Layout(w=12, h=10),
    )  # fmt: skip


def score_by_row() -> wr.BarPlot:
    return wr.BarPlot(
        title="score by row of the table", metrics=[wr.SummaryMetric("score")],
        groupby=wr.Config("names.row"), groupby_aggfunc="mean", groupby_rangefunc="stddev",
        layout=wr.Layout(x=12, w=12, h=10),
    )  # fmt: skip


def rho_over_steps() -> wr.LinePlot:
    return _lines("ρ over steps", ["train/rho", "train/target", "validation/rho"])


def alpha_over_steps() -> wr.LinePlot:
    return _lines("α over steps", ["train/alpha"])


def gap_over_steps() -> wr.LinePlot:
    return _lines("target minus ρ over steps", ["train/gap"])


def loss_over_steps() -> wr.LinePlot:
    return _lines("training loss over steps", ["train/loss"])


def speed_over_steps() -> wr.LinePlot:
    """A learned mask makes long texts faster as it closes."""
    return _lines("examples per second over steps", ["train/examples_per_second"])


def score_curves() -> list[Any]:
    return [_lines(f"{name} over steps", [f"validation/{name}"]) for name in SCORES]


def layer_maps() -> wr.MediaBrowser:
    """The heat map of each run: ρ, layers by evaluations."""
    return wr.MediaBrowser(
        title="ρ of each layer at each evaluation", media_keys=["layers"], num_columns=4,
        layout=wr.Layout(w=24, h=10),
    )  # fmt: skip


def rho_of_layers() -> wr.LinePlot:
    return _lines("ρ of each layer over steps", metric_regex="validation_layers/rho/.*")


def rows_and_columns() -> wr.LinePlot:
    return _lines(
        "rows and columns of each layer over steps",
        metric_regex="validation_layers/(row|column)_share/.*",
    )


def masks() -> wr.MediaBrowser:
    return wr.MediaBrowser(
        title="masks of texts of the development set", media_keys=["masks/0", "masks/1"],
        num_columns=2, layout=wr.Layout(w=24, h=14),
    )  # fmt: skip


def courses() -> wr.MediaBrowser:
    return wr.MediaBrowser(
        title="the course of each run", media_keys=["course"], num_columns=2,
        layout=wr.Layout(w=24, h=14),
    )  # fmt: skip


def table() -> wr.WeavePanelSummaryTable:
    """What ``aaa table NAME --wandb`` has logged."""
    return wr.WeavePanelSummaryTable(table_name="table", layout=wr.Layout(w=24, h=10))


def table_page() -> wr.MediaBrowser:
    return wr.MediaBrowser(
        title="the table's page", media_keys=["page"], num_columns=1, layout=wr.Layout(w=24, h=16)
    )


def workspace(entity: str, project: str) -> ws.Workspace:
    """All runs of the project, grouped (and so coloured) by pattern, then by row of a table."""
    return ws.Workspace(
        entity=entity, project=project, name="Sparse attention", sections=sections(),
        settings=ws.WorkspaceSettings(x_axis=STEP, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config("names.pattern"), ws.Config("names.task")],
        ),
    )  # fmt: skip


def report(entity: str, project: str, look_up: bool = True) -> wr.Report:
    """The same panels with words between them, for readers.

    Args:
        look_up: whether run sets name the project, which W&B's package then looks up at once.
    """
    owner, place = (entity, project) if look_up else ("", "")
    runs = wr.Runset(
        entity=owner, project=place, name="runs by pattern", filters="JobType != 'table'",
        groupby=["config.names.pattern", "config.names.task"],
    )  # fmt: skip
    tables = wr.Runset(
        entity=owner, project=place, name="finished tables", filters="JobType = 'table'"
    )
    blocks: list[Any] = [
        wr.P(
            "Fixed and learned sparse attention at equal sparsity ρ (the share of attention cells "
            "that stay closed). Every point is a run; its id is the run's directory."
        ),
        wr.TableOfContents(),
    ]
    for section in sections():
        runset = tables if section.name == "Tables" else runs
        blocks += [
            wr.H1(text=section.name),
            wr.P(TEXTS[section.name]),
            wr.PanelGrid(runsets=[runset], panels=section.panels),
        ]
    return wr.Report(
        entity=entity, project=project, title="Sparse attention: score against sparsity",
        description="Runs of aaa finetune", blocks=blocks, width="fluid",
    )  # fmt: skip


TEXTS = {
    "Score against sparsity": "Up and to the right is better. A learned pattern is to be read "
    "against the fixed one at the same ρ and on the same task.",
    "How ρ gets to its target": "The target rises first; α is the multiplier of the gap between "
    "target and ρ, which the hinge keeps and the dual control moves.",
    "Scores over training": "On the development set. A task has one or two of these metrics.",
    "Layers": "Later layers close first in most runs.",
    "Masks": "What each layer opens for a text: chosen rows and columns are marked.",
    "Tables": "From aaa table NAME --wandb online.",
}


def _lines(title: str, names: Sequence[str] = (), metric_regex: str | None = None) -> wr.LinePlot:
    return wr.LinePlot(
        title=title, x=STEP, y=list(names), metric_regex=metric_regex,
        groupby_aggfunc="mean", groupby_rangefunc="stddev", layout=wr.Layout(w=12, h=9),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entity", required=True, help="a user or team of W&B")
    parser.add_argument("--project", default=PROJECT)
    parser.add_argument("--dry-run", action="store_true", help="print both as JSON, save neither")
    options = parser.parse_args(arguments)
    try:
        return make(options)
    except Error as error:
        message = " ".join(str(error).split())
        print(f"wandb_dashboard: {message} (wandb login, or --dry-run)", file=sys.stderr)
        return 2


def make(options: argparse.Namespace) -> int:
    made = (
        workspace(options.entity, options.project),
        report(options.entity, options.project, look_up=not options.dry_run),
    )
    if options.dry_run:
        for item in made:
            print(item._to_model().model_dump_json(indent=2, exclude_none=True))
        return 0
    for item in made:
        item.save()
        print(item.url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
