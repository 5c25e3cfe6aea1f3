"""The encoder of a run under its pattern, and whether there can be one."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from aaa.experiments.job import Job
from aaa.sparse import sparsify


def build_model(job: Job, dense: PreTrainedModel) -> PreTrainedModel:
    """The encoder under its head, sparsified, ready to train.

    Raises:
        ValueError: if it cannot be served under the pattern, or cannot checkpoint its layers.
    """
    model = sparsify(dense, job.pattern, job.config.run.executor)
    if job.settings.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise ValueError(
                f"training.gradient_checkpointing=true, but transformers' {type(model).__name__} "
                "has no gradient checkpointing: leave it at false"
            )
        model.gradient_checkpointing_enable()
    return model.train()


def rehearse(job: Job, dense: Callable[[], PreTrainedModel]) -> None:
    """Builds the model to throw it away: a run whose encoder cannot be served never begins.

    Args:
        dense: makes the encoder under its head; torch's random state is left as it was.

    Raises:
        ValueError: if the encoder cannot be had, and as ``build_model`` does.
    """
    logging.disable(logging.INFO)  # what there is to be said is said when it is built to stay
    try:
        with torch.random.fork_rng(devices=[]):
            build_model(job, dense())
    finally:
        logging.disable(logging.NOTSET)
