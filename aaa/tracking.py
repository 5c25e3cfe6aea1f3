"""W&B: one W&B run a run, with its config, metrics, masks and statistics. conf/logger/wandb.yaml.

A run's W&B id is its own id, so a resumed run goes on in its W&B run. Offline each process that
works on it leaves a folder ``wandb/offline-run-*`` of its own in the run's directory;
``wandb sync`` puts those of one id together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from aaa.plots.course import course_figure, layers_figure, read_course
from aaa.plots.maps import figure_of
from aaa.plots.sentence import sentence_maps
from aaa.training.loggers import Conclusion, CsvLogger

STEP = "trainer/global_step"  # Lightning's name of the axis
LAYER = re.compile(r"(?P<split>.+)/(?P<what>\w+)_layer_(?P<layer>\d+)")
GIB = 2**30


class WandbRunLogger(WandbLogger):
    """A run at W&B.

    Metrics have their names of metrics.csv, but for layers: ``validation/rho_layer_3`` is
    ``validation_layers/rho/03``, which W&B shows in a section of its own, in order.

    Args:
        num_texts: texts of the development set whose masks are drawn when the run has finished.
        options: ``wandb.init``'s.
    """

    def __init__(self, num_texts: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_texts = num_texts
        self._is_defined = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs figures of a step."""
        if not self._is_defined:
            for split in ("validation", "validation_mismatched", "test"):
                # Hundreds of them in a summary would hide what one looks for there.
                self.experiment.define_metric(
                    f"{split}_layers/*", step_metric=STEP, summary="none"
                )
            self._is_defined = True
        super().log_metrics({wandb_name(name): value for name, value in metrics.items()}, step)

    @rank_zero_only
    def conclude(self, conclusion: Conclusion) -> None:
        """The figures as the run's summary; pictures and tables of what it has learned."""
        result = conclusion.result
        self.experiment.summary.update(summary_of(result))
        self.experiment.log(media_of(conclusion, self.num_texts) | {STEP: result["steps"]})


def wandb_logger(
    run_id: str,
    directory: Path,
    project: str,
    mode: str,
    name: str,
    group: str | None,
    job_type: str | None,
    tags: Sequence[str],
    num_texts: int,
    entity: str | None = None,
) -> list[Logger]:
    """W&B beside ``metrics.csv``."""
    wandb = WandbRunLogger(
        num_texts, id=run_id, name=name, project=project, entity=entity, save_dir=directory,
        group=group, job_type=job_type, tags=list(dict.fromkeys(tags)), mode=mode, resume="allow",
        settings={"quiet": True},
    )  # fmt: skip
    return [CsvLogger(directory), wandb]


def wandb_name(name: str) -> str:
    """The name of a metric at W&B."""
    found = LAYER.fullmatch(name)
    if found is None:
        return name
    return f"{found['split']}_layers/{found['what']}/{int(found['layer']):02d}"


def summary_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The cell's figures: score and ρ in percent, what was chosen, what it cost."""
    summary = {
        "score": result["score"],
        "rho": 100 * result["sparsity"],
        "wall_minutes": result["wall_seconds"] / 60,
        "peak_memory_gib": result["peak_memory_bytes"] / GIB,
        "steps": result["steps"],
    }
    if result["examples_per_second"] is not None:
        summary["examples_per_second"] = result["examples_per_second"]
    if result["sparsity_target"] is not None:
        summary["rho_target"] = 100 * result["sparsity_target"]
    for name, scale in QUANTITIES.items():
        there = [value for value in result.get(name) or () if value is not None]
        if there:
            summary[name] = scale * sum(there) / len(there)
    return summary


# Of layers: shares in percent, counts as tokens a text.
QUANTITIES = {"row_share": 100, "column_share": 100, "row_count": 1, "column_count": 1}


def media_of(conclusion: Conclusion, num_texts: int) -> dict[str, Any]:
    """Pictures and tables by W&B's names."""
    import wandb

    result, directory = conclusion.result, conclusion.directory
    course = read_course(directory, result)
    media: dict[str, Any] = {
        "course": wandb.Image(course_figure(course)),
        "layers": wandb.Image(layers_figure(course)),
        "statistics/layers": _layers_table(result),
    }
    for side, tokens in result.get("chosen_tokens", {}).items():
        media[f"statistics/{side}_tokens"] = wandb.Table(
            columns=["token", "chosen %", "occurrences"],
            data=[[str(t["token"]), 100 * t["chosen"], t["occurrences"]] for t in tokens],
        )
    for number, (text, pair) in enumerate(conclusion.texts(num_texts)):
        try:
            maps = sentence_maps(directory, text, pair, head=0)
        except ValueError:  # a pattern that reads more than a text has no masks to show
            break
        words = text if pair is None else f"{text} | {pair}"
        media[f"masks/{number}"] = wandb.Image(figure_of(maps, words), caption=words)
    return media


def _layers_table(result: Mapping[str, Any]) -> Any:
    import wandb

    names = [name for name in QUANTITIES if name in result]
    lines = [
        [layer, 100 * rho, *(_scaled(result[name][layer], QUANTITIES[name]) for name in names)]
        for layer, rho in enumerate(result["sparsity_per_layer"])
    ]
    return wandb.Table(columns=["layer", "rho", *names], data=lines)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value
