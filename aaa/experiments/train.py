"""The training of one run: model, data, trainer, final evaluation, and its figures."""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from aaa.control import Controller
from aaa.data.batching import Collate, batches_per_epoch
from aaa.experiments.console import quiet_libraries
from aaa.experiments.describe import describe
from aaa.experiments.environment import hardware, peak_memory_bytes, reset_peak_memory
from aaa.experiments.plan import Plan
from aaa.experiments.prepare import Prepared
from aaa.experiments.result import CHECKPOINT, MODEL, PROGRESS
from aaa.experiments.resume import BEST, OWNER
from aaa.saved import quiet_transformers
from aaa.sparse import sparsify
from aaa.training.callbacks import Heartbeat, KeepBest, ResumePoint, Speed, StopOnSignal
from aaa.training.data_module import TEST, TaskData
from aaa.training.finetune import FineTune
from aaa.training.loggers import Conclusion, close_loggers, conclude
from aaa.training.progress import TrainingBar

log = logging.getLogger(__name__)

MOST_TOKENS = 64  # of a text whose masks are shown
AXES = ("row_share", "column_share", "row_count", "column_count")


def train(plan: Plan, prepared: Prepared) -> dict[str, Any]:
    """Trains from the beginning or from the run's last checkpoint, and evaluates at the end.

    Returns:
        What result.json is to say (the same in every process).

    Raises:
        Interrupted: if a signal stopped it; ``last.ckpt`` is then where it stood.
    """
    started = time.time()
    quiet_libraries()
    reset_peak_memory()
    settings = plan.settings
    seed_everything(plan.config.seed, verbose=False)
    model = build_model(plan)
    per_epoch = batches_per_epoch(
        len(prepared.splits["train"]), settings.batch_size * settings.world_size
    )
    total_steps = settings.total_steps(per_epoch)
    data = TaskData(
        prepared.splits,
        Collate(prepared.tokenizer, plan.task.is_regression),
        settings,
        total_steps,
        plan.config.seed,
    )
    controller = None
    if prepared.control is not None and prepared.by_length is not None:
        num_batches = total_steps * settings.accumulate
        controller = Controller(prepared.control, prepared.by_length, num_batches)
    splits = [name for name in prepared.splits if name != "train"]
    module = FineTune(
        model, plan.task, controller, settings, total_steps, splits, plan.config.seed
    )
    resume_point = ResumePoint(
        plan.directory / CHECKPOINT, plan.config.run.checkpoint_every, {OWNER: plan.run_id}
    )
    stop, speed, best = StopOnSignal(resume_point), Speed(), _keep_best(plan, total_steps)
    kept = [best] if best is not None else []
    trainer = _trainer(plan, total_steps, [speed, *kept, resume_point, stop])
    resume_from = resume_point.path if resume_point.path.exists() else None
    if resume_from is not None:
        log.info("resuming from %s", resume_from)
    for logger in trainer.loggers:
        logger.log_hyperparams(OmegaConf.to_container(plan.config, resolve=True))  # type: ignore[arg-type]
    succeeded = False
    try:
        trainer.fit(module, data, ckpt_path=resume_from, weights_only=True)
        if best is not None:
            trainer.validate(module, data, verbose=False)  # the last step's may be the best
            best.put_back(trainer, module)
        data.testing = True
        trainer.validate(module, data, verbose=False)
        result = describe(plan) | {"status": "finished"} | _figures(plan, prepared, module, speed)
        device = trainer.strategy.root_device
        result |= {
            "steps": trainer.global_step,
            "kept_step": trainer.global_step if best is None else best.step,
            "epochs": total_steps * settings.accumulate / per_epoch,
            "wall_seconds": time.time() - started,
            "peak_memory_bytes": peak_memory_bytes(device),
            "hardware": hardware(device) | {"processes": settings.world_size},
        }
        if trainer.is_global_zero:
            export(model, prepared.tokenizer, plan.directory / MODEL)
            conclude(
                trainer.loggers,
                Conclusion(plan.directory, result, partial(_texts, plan, prepared)),
            )
            resume_point.path.unlink(missing_ok=True)  # a finished run has no place to return to
            if best is not None:
                best.path.unlink()
        succeeded = True
    finally:
        stop.restore()
        close_loggers(trainer.loggers, succeeded)
    return result


def _keep_best(plan: Plan, total_steps: int) -> KeepBest | None:
    """For ``training.keep=best``; with a learned pattern, once its masks have settled."""
    if plan.settings.keep == "last":
        return None
    settled = 0.0 if plan.control is None else max(plan.control.ramp_end, plan.control.noise_end)
    # The last evaluation always counts, or there might be none.
    from_step = min(math.ceil(settled * total_steps), total_steps)
    return KeepBest(plan.directory / BEST, plan.task.headline, from_step)


def build_model(plan: Plan) -> PreTrainedModel:
    """The encoder under the task's head, sparsified, ready to train."""
    model = sparsify(
        plan.encoder.classifier(plan.task.num_labels), plan.pattern, plan.config.run.executor
    )
    if plan.settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model.train()


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights and tokenizer, for ``load_sparse``, ``aaa plot`` and ``model.path=`` to take."""
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _figures(plan: Plan, prepared: Prepared, module: FineTune, speed: Speed) -> dict[str, Any]:
    reported = TEST if TEST in module.figures else "validation"
    headline = module.figures[reported]
    axis: dict[str, Any] = {}
    if plan.pattern.learnable:
        axis = {name: headline[name] for name in AXES}
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
        "sparsity_target": prepared.control.target if prepared.control is not None else None,
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


def _trainer(plan: Plan, total_steps: int, callbacks: list[Callback]) -> Trainer:
    settings, place = plan.settings, plan.config.run
    callbacks = [*callbacks, Heartbeat(plan.directory / PROGRESS)]
    if place.progress:
        callbacks = [*callbacks, TrainingBar(plan.task.headline)]
    batches = total_steps * settings.accumulate
    return Trainer(
        accelerator=place.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        # Patterns synchronise their own buffers; processes may evaluate different numbers of
        # batches.
        strategy=DDPStrategy(broadcast_buffers=False) if settings.world_size > 1 else "auto",
        precision=settings.precision,
        max_steps=total_steps,
        max_epochs=-1,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip,
        use_distributed_sampler=False,
        # One interval more than fits: the evaluation at the very end is ours.
        val_check_interval=batches // settings.evaluations + 1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=min(place.log_every, batches),
        logger=instantiate(plan.config.logger, run_id=plan.run_id, directory=plan.directory),
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=place.progress,
        enable_model_summary=False,
        default_root_dir=plan.directory,
    )
