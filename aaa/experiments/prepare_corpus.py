"""The data of a pre-training run: a tokenizer, tokens in blocks, and the target."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import PreTrainedTokenizerFast

from aaa.control import LengthTarget, SparsityControl
from aaa.data.blocks import Blocks, MaskedBlocks
from aaa.data.masking import Masking
from aaa.data.packing import Progress as Report
from aaa.data.packing import pack
from aaa.data.streamed import StreamedBlocks, held_out_tokens
from aaa.experiments.encoder import rehearse
from aaa.experiments.launch import process_rank
from aaa.experiments.prepare import MAX_UNKNOWN, check_layers, fit_target, reachable
from aaa.experiments.pretraining import PretrainingPlan
from aaa.models import Encoder

log = logging.getLogger(__name__)

HELD_OUT_SEED = 0  # of what is hidden in held-out blocks: the same for every run


@dataclass(frozen=True)
class PreparedCorpus:
    """Blocks to train on and held-out ones, their tokenizer, and the target as a number."""

    train: MaskedBlocks | StreamedBlocks
    validation: MaskedBlocks
    tokenizer: PreTrainedTokenizerFast
    control: SparsityControl | None
    by_length: LengthTarget | None


def prepare_corpus(plan: PretrainingPlan) -> PreparedCorpus:
    """Tokenises the corpus (or finds it tokenised before) and fixes the target.

    Raises:
        ValueError: if corpus or tokenizer cannot be had or do not fit each other, if the encoder
            cannot be served under the pattern, or if the target is above what the pattern can
            reach on blocks of this length.
    """
    check_layers(plan.pattern.closed(), plan.encoder.num_layers)
    data, place = plan.config.data, plan.config.run
    control = by_length = None
    if plan.control is not None:
        lengths = [data.max_length]  # that of all blocks but the last
        control = reachable(plan, plan.control, lengths)
        by_length = fit_target(plan, control, lengths, lengths)
    cache = Path(place.output_dir) / "cache"
    tokenizer = _tokenizer(plan, cache)
    rehearse(plan, partial(plan.encoder.masked_lm, tokenizer))
    masking, seed = _masking(plan, tokenizer, plan.config.seed), plan.config.seed
    train: MaskedBlocks | StreamedBlocks
    if data.streaming:
        kept = held_out_tokens(plan.corpus, tokenizer)
        train = StreamedBlocks(plan.corpus, tokenizer, data.max_length, masking, seed)
    else:
        with _progress(f"tokenising {plan.corpus.name}", place.progress) as report:
            workers = place.num_workers or len(os.sched_getaffinity(0))
            streams = pack(plan.corpus, tokenizer, data.held_out, cache, workers, report)
        kept = streams["validation"]
        train = MaskedBlocks(Blocks(streams["train"], data.max_length, tokenizer), masking, seed)
    held_out = Blocks(kept, data.max_length, tokenizer)
    if len(held_out) < plan.settings.world_size:
        raise ValueError(
            f"the documents held out are {len(held_out)} blocks, fewer than the "
            f"{plan.settings.world_size} processes: raise data.held_out"
        )
    _check_vocabulary(plan, held_out, tokenizer)
    validation = MaskedBlocks(held_out, _masking(plan, tokenizer, HELD_OUT_SEED), None)
    return PreparedCorpus(train, validation, tokenizer, control, by_length)


def _tokenizer(plan: PretrainingPlan, cache: Path) -> PreTrainedTokenizerFast:
    if plan.tokenizer is not None:  # which may have to be trained first
        _check_length(plan, plan.config.model.get("max_position_embeddings"))
        tokenizer = plan.tokenizer.get(plan.corpus, cache, plan.config.data.streaming)
    else:
        assert isinstance(plan.encoder, Encoder)
        tokenizer = plan.encoder.tokenizer()
    _check_length(plan, tokenizer.model_max_length)
    return tokenizer


def _check_length(plan: PretrainingPlan, limit: int | None) -> None:
    length = plan.config.data.max_length
    if limit is not None and length > limit:
        raise ValueError(
            f"data.max_length is {length}, but model={plan.config.names.model} takes at most "
            f"{limit} tokens"
        )


def _masking(plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast, seed: int) -> Masking:
    ends = (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
    return Masking(plan.settings.masked, len(tokenizer), tokenizer.mask_token_id, ends, seed)


def _check_vocabulary(
    plan: PretrainingPlan, blocks: Blocks, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids_BN = blocks.read(range(min(200, len(blocks))))
    unknown = np.mean(ids_BN[ids_BN != blocks.pad] == tokenizer.unk_token_id)
    if unknown > MAX_UNKNOWN:
        raise ValueError(
            f"the tokenizer of model={plan.config.names.model} does not know {unknown:.0%} of the "
            f"tokens of corpus={plan.corpus.name}: choose a model that was made for such texts, "
            "for example model=tiny for corpus=demo_corpus"
        )


@contextmanager
def _progress(doing: str, shown: bool) -> Iterator[Report | None]:
    """A bar over documents, from the first process, once there is something to be shown."""
    if not shown or process_rank() > 0:
        yield None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(doing, total=None, visible=False)

        def report(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of, visible=True)

        yield report
