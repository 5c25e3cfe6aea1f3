"""What a pre-training run is to do, read from its config and checked before any work starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aaa.control import SparsityControl
from aaa.data.corpus import Corpus
from aaa.data.streamed import HELD_OUT_DOCUMENTS
from aaa.data.wordpiece import TokenizerSource
from aaa.experiments.configs import (
    build,
    check_keys,
    check_length,
    check_not_given,
    check_unread,
    is_given,
)
from aaa.experiments.job import Job, check_surroundings, find_runs, identity
from aaa.experiments.plan import build_pattern, check_source, method, without_places
from aaa.experiments.resume import KIN
from aaa.models import Encoder, Pretrainable
from aaa.models.pretrained import PretrainedEncoder
from aaa.models.scratch import NewBert
from aaa.numbers import check_bool, is_number
from aaa.patterns import Pattern
from aaa.training.settings import PretrainingSettings

HEADLINE = "masked_accuracy"

# How a step's blocks are divided among devices and micro-steps decides rounding and the draws of
# dropout, not what a step learns from: only their product is in a run's name.
DIVISION = ("batch_size", "accumulate", "devices", "num_nodes")


@dataclass(frozen=True)
class PretrainingPlan(Job):
    """A pre-training run: a masked language model under a pattern on a corpus."""

    encoder: Pretrainable
    settings: PretrainingSettings
    corpus: Corpus
    tokenizer: TokenizerSource | None  # None for an encoder with a tokenizer of its own
    kin_id: str  # the run's identity but for the blocks of a step

    folder = "pretraining"
    command = "pretrain"

    @property
    def label(self) -> dict[str, str]:
        return super().label | {KIN: self.kin_id}

    @property
    def subject(self) -> str:
        """The corpus."""
        return self.corpus.name

    @property
    def headline(self) -> str:
        """The share of hidden tokens that are found, on held-out documents."""
        return HEADLINE


def make_pretraining_plan(config: DictConfig) -> PretrainingPlan:
    """Instantiates everything that a config names.

    Raises:
        ValueError: naming what is wrong in the config, and what would be right.
    """
    check_keys(config, "pretrain")
    find_runs(config)
    pattern = build_pattern(config.pattern)
    if pattern.wants & {"heads"}:
        raise ValueError(
            f"{pattern} reads dependency parses of single texts, which blocks of packed documents "
            "do not have: pre-train under another pattern"
        )
    settings = build(config.training, "training", PretrainingSettings)
    check_length(config)
    control = build(config.sparsity, "sparsity", SparsityControl)
    corpus = build(config.corpus, "corpus", Corpus)
    check_source(config, "pretrain", "corpus", "choose corpus=wikipedia or scale=small")
    encoder, tokenizer = _start(config)
    check_surroundings(config, settings, pattern)
    _check_data(config)
    decides = science(config, corpus, encoder, pattern, control, settings, tokenizer)
    kin = {name: value for name, value in decides.items() if name != "examples_a_step"}
    return PretrainingPlan(
        config=config,
        pattern=pattern,
        encoder=encoder,
        control=control if pattern.learnable else None,
        settings=settings,
        corpus=corpus,
        tokenizer=tokenizer,
        kin_id=identity(kin)["run_id"],
        **identity(decides),
    )


def _start(config: DictConfig) -> tuple[Pretrainable, TokenizerSource | None]:
    """What is trained, and its tokenizer's source unless it has a tokenizer of its own."""
    encoder: Pretrainable = build(config.model, "model", Pretrainable)
    if isinstance(encoder, NewBert) and encoder.path is not None:
        # Its config may name the tokenizer of a new one, as bert_base's does: no mistake.
        why = f"{encoder.path} has its own"
        check_not_given("model", ("path",), why)
        check_not_given("tokenizer", (), why)
        return PretrainedEncoder(path=encoder.path), None
    if isinstance(encoder, Encoder):
        why = f"model={config.names.model} brings its own; choose model=bert_4x256 or bert_base"
        check_unread(config, "pretrain", ["tokenizer.path"], why)
        check_not_given("tokenizer", (), why)
        return encoder, None
    return encoder, build(config.tokenizer, "tokenizer", TokenizerSource)


def science(
    config: DictConfig,
    corpus: Corpus,
    encoder: Pretrainable,
    pattern: Pattern,
    control: SparsityControl,
    settings: PretrainingSettings,
    tokenizer: TokenizerSource | None,
) -> dict[str, Any]:
    """The part of a config that decides a run's numbers; its hash names the run."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    decides = method(plain, pattern, control)
    training = {key: value for key, value in decides["training"].items() if key not in DIVISION}
    new = not isinstance(encoder, PretrainedEncoder)
    return decides | {
        "training": training,
        "examples_a_step": settings.examples_a_step,
        "corpus": corpus.fingerprint(),
        "held_out": plain["data"]["held_out"],
        "streaming": plain["data"]["streaming"],
        "tokenizer": None if tokenizer is None else tokenizer.fingerprint(),
        "model": without_places(plain["model"]) if new else None,
        "weights": encoder.fingerprint(),
    }


def _check_data(config: DictConfig) -> None:
    data = config.data
    if not isinstance(data.max_length, int) or data.max_length < 3:
        raise ValueError(f"data.max_length must be 3 or more tokens, not {data.max_length!r}")
    share = data.held_out
    if not isinstance(share, (int, float)) or not 0 < share <= 0.5:
        raise ValueError(f"data.held_out must be a share above 0, at most 0.5, not {share!r}")
    check_bool("data.streaming", data.streaming)
    check_bool("run.compile", config.run.compile)
    if data.streaming and config.training.max_steps is None:
        raise ValueError(
            "data.streaming=true needs training.max_steps: how long an epoch is is not known"
        )
    if data.streaming and is_given("data.held_out"):
        raise ValueError(
            f"data.held_out={share} is a share, but how long a stream is is not known: leave it "
            f"out, data.streaming=true holds out the first {HELD_OUT_DOCUMENTS} documents"
        )
    minutes = config.run.checkpoint_minutes
    if minutes is not None and not (is_number(minutes) and minutes > 0):
        raise ValueError(f"run.checkpoint_minutes must be above 0 or null, not {minutes!r}")
    workers = config.run.num_workers
    if workers is not None and not (is_number(workers, int) and workers >= 1):
        raise ValueError(
            f"run.num_workers must be null (one a core) or 1 or more, not {workers!r}"
        )
    keep = config.run.keep_checkpoints
    if not is_number(keep, int) or keep < 1:
        raise ValueError(f"run.keep_checkpoints must be 1 or more, not {keep!r}")
