"""The training of a fine-tuning run: model, data, and its figures."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from pytorch_lightning import Trainer, seed_everything

from aaa.data.batching import Collate, batches_per_epoch
from aaa.experiments.encoder import build_model
from aaa.experiments.fit import AXIS_FIGURES, Ending, build_controller, fit, reached_for
from aaa.experiments.plan import Plan
from aaa.experiments.prepare import Prepared
from aaa.experiments.resume import BEST
from aaa.training.callbacks import KeepBest, Speed
from aaa.training.data_module import TEST, TaskData
from aaa.training.finetune import FineTune
from aaa.training.settling import settle

MOST_TOKENS = 64  # of a text whose masks are shown


def train(plan: Plan, prepared: Prepared) -> dict[str, Any]:
    """Fine-tunes from the beginning or from the run's last checkpoint, and evaluates at the end.

    Returns:
        What result.json is to say (the same in every process).

    Raises:
        Interrupted: if a signal stopped it; ``last.ckpt`` is then where it stood.
        Diverged: if it came apart.
    """
    settings = plan.settings
    seed_everything(plan.config.seed, verbose=False)
    model = build_model(plan, plan.encoder.classifier(plan.task.num_labels))
    per_epoch = batches_per_epoch(
        len(prepared.splits["train"]), settings.batch_size * settings.world_size
    )
    total_steps = settings.total_steps(len(prepared.splits["train"]))
    data = TaskData(
        prepared.splits,
        Collate(prepared.tokenizer, plan.task.is_regression),
        settings,
        total_steps,
        plan.config.seed,
    )
    controller = build_controller(plan, model, prepared.control, prepared.by_length, total_steps)
    splits = [name for name in prepared.splits if name != "train"]
    module = FineTune(
        model, plan.task, controller, settings, total_steps, splits, plan.config.seed
    )
    speed, best = Speed(), _keep_best(plan, total_steps)
    kept = [best] if best is not None else []
    return fit(
        plan,
        module,
        data,
        prepared.tokenizer,
        [speed, *kept],
        Ending(
            figures=lambda: (
                _figures(plan, prepared, module, speed)
                | {"epochs": total_steps * settings.accumulate / per_epoch}
                | ({} if best is None else {"kept_step": best.step})
            ),
            before=partial(_before_the_last_evaluation, prepared, module, data, best),
            texts=partial(_texts, plan, prepared),
        ),
    )


def _before_the_last_evaluation(
    prepared: Prepared, module: FineTune, data: TaskData, best: KeepBest | None, trainer: Trainer
) -> None:
    if best is not None:
        trainer.validate(module, data, verbose=False)  # the last step's may be the best
        best.put_back(trainer, module)
    settle(trainer, module, data, prepared.splits["validation"]["length"][:])
    data.testing = True


def _keep_best(plan: Plan, total_steps: int) -> KeepBest | None:
    """For ``training.keep=best``; with a learned pattern, once its masks have settled."""
    if plan.settings.keep == "last":
        return None
    settled = 0.0 if plan.control is None else plan.control.settles_at
    # The last evaluation always counts, or there might be none.
    from_step = min(math.ceil(settled * total_steps), total_steps)
    return KeepBest(plan.directory / BEST, plan.task.headline, from_step)


def _figures(plan: Plan, prepared: Prepared, module: FineTune, speed: Speed) -> dict[str, Any]:
    reported = TEST if TEST in module.figures else "validation"
    headline = module.figures[reported]
    axis: dict[str, Any] = {}
    if plan.pattern.learnable:
        axis = {name: headline[name] for name in AXIS_FIGURES}
        axis["chosen_tokens"] = {
            name: [
                {**token, "token": prepared.tokenizer.convert_ids_to_tokens(token["token"])}
                for token in tokens
            ]
            for name, tokens in headline["chosen_tokens"].items()
        }
    return {
        "score": 100 * headline["metrics"][plan.task.headline],
        "split": reported,
        "metrics": {split: figures["metrics"] for split, figures in module.figures.items()},
        "sparsity": headline["sparsity"],
        "sparsity_per_layer": headline["sparsity_per_layer"],
        **axis,
        "sparsity_target": reached_for(prepared.control),
        "examples_per_second": speed.examples_per_second,
        "data_wait_share": speed.data_wait_share,
    }


def _texts(plan: Plan, prepared: Prepared, count: int) -> list[tuple[str, str | None]]:
    """The first texts of the development set that are short enough to look at."""
    lengths = prepared.splits["validation"]["length"][:]
    short = [place for place, length in enumerate(lengths) if length <= MOST_TOKENS][:count]
    if not short:
        return []
    first, *second = plan.task.columns
    rows = plan.task.load()["validation"].select(short)
    return [(row[first], row[second[0]] if second else None) for row in rows]
