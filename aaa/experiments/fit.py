"""A run's way through Lightning: from where it stands to its end, and what it leaves behind."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Callback, LightningDataModule, Trainer
from pytorch_lightning.strategies import DDPStrategy
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from aaa.control import Controller, LengthTarget, SparsityControl
from aaa.experiments.console import quiet_libraries
from aaa.experiments.describe import describe
from aaa.experiments.environment import hardware, peak_memory_bytes, reset_peak_memory
from aaa.experiments.job import Job
from aaa.experiments.result import CHECKPOINT, MODEL, PROGRESS
from aaa.experiments.resume import find_resume_point, put_aside_later
from aaa.saved import quiet_transformers
from aaa.training.callbacks import Heartbeat, StopOnSignal, Stopwatch
from aaa.training.checkpoints import ResumePoint, SafeCheckpointIO
from aaa.training.guard import Diverged
from aaa.training.loggers import Conclusion, close_loggers, conclude
from aaa.training.module import SparseTraining
from aaa.training.progress import TrainingBar

log = logging.getLogger(__name__)

# Of an evaluation under a learned pattern, for result.json: shares of the tokens, counts a text.
AXIS_FIGURES = ("row_share", "column_share", "row_count", "column_count")


@dataclass(frozen=True)
class Ending:
    """What a run does at its end.

    Args:
        figures: the run's own figures, once it has been evaluated.
        before: what comes between the last step and the final evaluation.
        texts: so many texts (or pairs) whose masks are worth a look.
    """

    figures: Callable[[], dict[str, Any]]
    before: Callable[[Trainer], None] = lambda _: None
    texts: Callable[[int], list[tuple[str, str | None]]] = lambda _: []


def build_controller(
    job: Job,
    model: PreTrainedModel,
    control: SparsityControl | None,
    by_length: LengthTarget | None,
    total_steps: int,
) -> Controller | None:
    """What drives the gates; None where the pattern has nothing to learn."""
    if control is None or by_length is None:
        return None
    num_batches = total_steps * job.settings.accumulate
    return Controller(control, by_length, num_batches, model.config.num_attention_heads)


def fit(
    job: Job,
    module: SparseTraining,
    data: LightningDataModule,
    tokenizer: PreTrainedTokenizerFast,
    callbacks: Sequence[Callback],
    ending: Ending,
) -> dict[str, Any]:
    """Trains from the beginning or from the run's latest checkpoint, evaluates, and exports.

    Checkpoints stay: until result.json is there, they are all that a kill would leave of the run.

    Args:
        callbacks: the run's own; they come before its checkpoints are written.
        ending: what the run does at its end.

    Returns:
        What result.json is to say (the same in every process).

    Raises:
        Interrupted: if a signal stopped it; ``last.ckpt`` is then where it stood.
        Diverged: if it came apart.
    """
    stopwatch = Stopwatch()
    quiet_libraries()
    reset_peak_memory()
    place = job.config.run
    resume_point = ResumePoint(
        job.directory / CHECKPOINT,
        place.checkpoint_every,
        job.label,
        place.get("checkpoint_minutes"),
    )
    stop = StopOnSignal(resume_point)
    heartbeat = Heartbeat(job.directory / PROGRESS)
    own = [stopwatch, resume_point, stop, heartbeat]
    trainer = _trainer(job, module.total_steps, [*callbacks, *own])
    resume_from = find_resume_point(job.directory, job.run_id)
    if resume_from is not None:
        log.info("resuming from %s", resume_from)
        put_aside_later(job.directory, resume_from)
    for logger in trainer.loggers:
        logger.log_hyperparams(OmegaConf.to_container(job.config, resolve=True))  # type: ignore[arg-type]
    succeeded = False
    try:
        trainer.fit(module, data, ckpt_path=resume_from, weights_only=True)
        ending.before(trainer)
        trainer.validate(module, data, verbose=False)
        device = trainer.strategy.root_device
        result = describe(job) | {
            "status": "finished",
            "steps": trainer.global_step,
            "kept_step": trainer.global_step,
            "wall_seconds": stopwatch.seconds,
            "peak_memory_bytes": peak_memory_bytes(device),
            "hardware": hardware(device) | {"processes": job.settings.world_size},
        }
        if module.settled is not None:
            result |= {
                "trained_sparsity": module.settled.trained,
                "logits_lowered": module.settled.lowered,
                "gates_turned": module.settled.turned,
            }
        result |= ending.figures()
        _check_metrics(result)
        if trainer.is_global_zero:
            export(module.model, tokenizer, job.directory / MODEL)
            conclude(trainer.loggers, Conclusion(job.directory, result, ending.texts))
        succeeded = True
    except Diverged as wreck:
        if trainer.is_global_zero:
            wreck.add(_export_from_before(job, module.model, tokenizer))
        raise
    finally:
        stop.restore()
        if trainer.is_global_zero:
            heartbeat.stop()
        close_loggers(trainer.loggers, succeeded)
    return result


def _check_metrics(result: dict[str, Any]) -> None:
    for split, metrics in result["metrics"].items():
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise Diverged(result["steps"] - 1, f"the {split} {name} is {value}")


def reached_for(control: SparsityControl | None) -> float | None:
    """The rho that training was to reach; None where nothing was."""
    if control is None or not control.has_target:
        return None
    return control.rho


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Weights and tokenizer, for ``load_sparse``, ``aaa plot`` and ``model.path=`` to take."""
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _export_from_before(
    job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> str:
    """Exports the latest checkpoint's weights, and says how to go on from there, if it can."""
    try:
        path = find_resume_point(job.directory, job.run_id)
        if path is None:
            return ""
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = {
            name.removeprefix("model."): value
            for name, value in state["state_dict"].items()
            if name.startswith("model.")
        }
        model.load_state_dict(weights)
        export(model, tokenizer, job.directory / MODEL)
    except (OSError, ValueError, RuntimeError) as trouble:  # why the run failed must not be lost
        log.warning("its weights from before could not be exported: %s", trouble)
        return ""
    return f"; model.path={job.run_id} begins with its weights of step {state['global_step']}"


def _trainer(job: Job, total_steps: int, callbacks: list[Callback]) -> Trainer:
    settings, place = job.settings, job.config.run
    if place.progress:
        callbacks = [*callbacks, TrainingBar(job.headline)]
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
        logger=instantiate(job.config.logger, run_id=job.run_id, directory=job.directory),
        callbacks=callbacks,
        enable_checkpointing=False,
        plugins=[SafeCheckpointIO(place.get("keep_checkpoints", 1))],
        enable_progress_bar=place.progress,
        enable_model_summary=False,
        default_root_dir=job.directory,
    )
