"""The training of a pre-training run: model, data, and its figures."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import seed_everything

from aaa.data.blocks import MaskedBlocks
from aaa.data.streamed import StreamedBlocks
from aaa.experiments.encoder import build_model
from aaa.experiments.fit import AXIS_FIGURES, Ending, build_controller, fit, reached_for
from aaa.experiments.prepare_corpus import PreparedCorpus
from aaa.experiments.pretraining import PretrainingPlan
from aaa.training.corpus_data import CorpusData
from aaa.training.guard import LossGuard
from aaa.training.pretrain import Pretrain
from aaa.training.settings import PretrainingSettings
from aaa.training.settling import settle
from aaa.training.throughput import Throughput, flops_per_token


def train_on_corpus(plan: PretrainingPlan, prepared: PreparedCorpus) -> dict[str, Any]:
    """Pre-trains from the beginning or from the latest checkpoint, and evaluates at the end.

    Returns:
        What result.json is to say (the same in every process).

    Raises:
        Interrupted: if a signal stopped it; ``last.ckpt`` is then where it stood.
        Diverged: if the loss came apart; ``last.ckpt`` is from before that.
    """
    settings = plan.settings
    seed_everything(plan.config.seed, verbose=False)
    model = build_model(plan, plan.encoder.masked_lm(prepared.tokenizer))
    length = prepared.validation.blocks.length
    total_steps, epochs = _length_of_training(settings, prepared.train)
    controller = build_controller(plan, model, prepared.control, prepared.by_length, total_steps)
    module = Pretrain(model, controller, settings, total_steps, plan.config.seed)
    data = CorpusData(prepared.train, prepared.validation, settings, total_steps)
    num_places = prepared.train.masking.num_places(length)
    speed = Throughput(length, flops_per_token(model, length, num_places), settings.precision)
    if plan.config.run.compile:
        model.base_model.compile()
    return fit(
        plan,
        module,
        data,
        prepared.tokenizer,
        [LossGuard(settings.spike), speed],
        Ending(
            figures=lambda: _figures(plan, prepared, module, speed) | {"epochs": epochs},
            before=lambda trainer: settle(trainer, module, data, [length]),
        ),
    )


def _figures(
    plan: PretrainingPlan, prepared: PreparedCorpus, module: Pretrain, speed: Throughput
) -> dict[str, Any]:
    evaluated = module.figures
    axes = {name: evaluated[name] for name in AXIS_FIGURES} if plan.pattern.learnable else {}
    return axes | {
        "score": 100 * evaluated["metrics"][plan.headline],
        "split": "validation",
        "metrics": {"validation": evaluated["metrics"]},
        "sparsity": evaluated["sparsity"],
        "sparsity_per_layer": evaluated["sparsity_per_layer"],
        "sparsity_target": reached_for(prepared.control),
        "examples_per_second": speed.examples_per_second,
        "tokens_per_second": speed.tokens_per_second,
        "data_wait_share": speed.data_wait_share,
        "mfu": speed.utilisation,
        "vocabulary": len(prepared.tokenizer),
    }


def _length_of_training(
    settings: PretrainingSettings, train: MaskedBlocks | StreamedBlocks
) -> tuple[int, float | None]:
    """Optimiser steps, and how often they go over the corpus, which of a stream is not known."""
    if isinstance(train, StreamedBlocks):
        assert settings.max_steps is not None
        return settings.max_steps, None
    count = len(train.blocks)
    total_steps = settings.total_steps(count)
    return total_steps, total_steps * settings.examples_a_step / count
