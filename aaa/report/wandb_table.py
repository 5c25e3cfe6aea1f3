"""A measured table at W&B: a run of its own with the table, its page and its pictures."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from aaa.report.files import write_files
from aaa.report.measured import Measured
from aaa.report.tidy import records
from aaa.report.wording import Wording

PROJECT = "adaptive-axis-attention"


def log_in() -> None:
    """Logs in to W&B, with the API key that it knows or on a terminal asks for.

    Raises:
        ValueError: if there is none, or W&B does not take it.
    """
    import wandb

    try:
        wandb.setup(wandb.Settings(mode="online"))  # else WANDB_MODE=offline makes it no question
        wandb.login()
    except wandb.Error as error:
        said = " ".join(str(error).split())
        raise ValueError(f"--wandb online: {said} (--wandb offline needs none)") from error


def log_table(table: Measured, mode: Literal["online", "offline"], output_dir: Path) -> Path:
    """Logs the table; its W&B id is its name and scale, so that a later one takes its place.

    Returns:
        The folder in which W&B keeps it.
    """
    import wandb

    wording = Wording(table)
    group = ".".join(filter(None, (table.name, table.scale)))
    lines = records(wording)
    cells = wandb.Table(columns=list(lines[0]), data=[list(line.values()) for line in lines])
    place = output_dir / "tables"
    place.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=PROJECT, id=group, name=wording.title, group=group, job_type="table",
        tags=[table.name, *filter(None, [table.scale])], dir=place, mode=mode, resume="allow",
        settings={"quiet": True}, config={name: [*values] for name, values in table.facts.items()},
    )  # fmt: skip
    with run, tempfile.TemporaryDirectory() as folder:
        page, *others = write_files(wording, Path(folder))
        run.log(
            {
                "table": cells,
                "page": wandb.Html(page.read_text(), inject=False),
                **{
                    path.stem.removeprefix(f"{table.name}-"): wandb.Image(str(path))
                    for path in others
                    if path.suffix == ".png"
                },
            }
        )
        return Path(run.dir).parent
