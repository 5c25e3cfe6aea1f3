"""The data and the target of a run: loaded, encoded and checked against what can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from aaa.control import LengthTarget, SparsityControl
from aaa.data.encode import encode
from aaa.data.parses import add_words
from aaa.experiments.encoder import rehearse
from aaa.experiments.job import Job
from aaa.experiments.plan import Plan, matched_pattern
from aaa.fingerprint import hash_json
from aaa.objective import sparsity_of_lengths
from aaa.patterns import Full, LayerSite, Pattern

# Texts of which more than this share of the tokens is unknown belong to another tokenizer.
MAX_UNKNOWN = 0.2


@dataclass(frozen=True)
class Prepared:
    """Encoded splits, the tokenizer that made them, and the objective with its target a number."""

    splits: dict[str, Dataset]
    tokenizer: PreTrainedTokenizerFast
    control: SparsityControl | None
    by_length: LengthTarget | None


def prepare(plan: Plan) -> Prepared:
    """Loads and encodes the data (from the cache, if it was encoded before) and fixes the target.

    Raises:
        ValueError: if the encoder cannot be served under the pattern, if data or tokenizer cannot
            be had or do not fit each other, or if the target is above what the pattern can reach
            on this data.
    """
    check_layers(plan.pattern.closed(), plan.encoder.num_layers)
    tokenizer = plan.encoder.tokenizer()
    texts, fingerprint = plan.task.load(), plan.task.fingerprint()
    rehearse(plan, partial(plan.encoder.classifier, plan.task.num_labels))
    cache = Path(plan.config.run.output_dir) / "cache"
    if plan.parses is not None:
        texts = {
            name: add_words(split, plan.task.columns, plan.parses, fingerprint, cache)
            for name, split in texts.items()
        }
        fingerprint = hash_json([fingerprint, plan.parses.fingerprint()])
    splits = {
        name: encode(
            split, tokenizer, plan.task.columns, plan.config.data.max_length, fingerprint, cache
        )
        for name, split in texts.items()
    }
    _check_vocabulary(plan, splits["validation"], tokenizer)
    if plan.control is None:
        return Prepared(splits, tokenizer, None, None)
    development = splits["validation"]["length"][:]
    control = reachable(plan, plan.control, development)
    by_length = fit_target(plan, control, splits["train"]["length"][:], development)
    return Prepared(splits, tokenizer, control, by_length)


def fit_target(
    plan: Job, control: SparsityControl, training: Sequence[int], evaluation: Sequence[int]
) -> LengthTarget:
    """The target for texts of each length, given those of training and evaluation."""
    return LengthTarget.fit(
        control.aim,
        plan.pattern.closed(),
        plan.encoder.num_layers,
        training,
        evaluation,
        plan.encoder.windows,
    )


def check_layers(pattern: Pattern, num_layers: int) -> None:
    """Raises a ValueError if a pattern is for layers that the encoder does not have."""
    for layer in range(num_layers):
        pattern.bind(LayerSite(layer, num_layers, hidden_size=1, num_heads=0))


def _check_vocabulary(plan: Plan, split: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [token for row in split[:200]["input_ids"] for token in row]
    unknown = ids.count(tokenizer.unk_token_id) / max(1, len(ids))
    if unknown > MAX_UNKNOWN:
        raise ValueError(
            f"the tokenizer of model={plan.config.names.model} does not know {unknown:.0%} of the "
            f"tokens of task={plan.task.name}: choose a model that was made for such texts, for "
            "example model=minilm for the GLUE tasks or model=tiny for the demo tasks"
        )


def reachable(plan: Job, control: SparsityControl, lengths: Sequence[int]) -> SparsityControl:
    """The control with its target as a number, if the pattern can get there on texts so long."""
    if not control.has_target:
        return replace(control, target=0.0)
    num_layers, windows = plan.encoder.num_layers, plan.encoder.windows
    lowest, highest = (
        sparsity_of_lengths(pattern, lengths, num_layers, windows)
        for pattern in (Full(), plan.pattern.closed())
    )
    if control.matched_pattern is not None:
        fixed = matched_pattern(control)
        control = replace(control, target=sparsity_of_lengths(fixed, lengths, num_layers, windows))
    if control.rho < lowest:
        raise ValueError(
            f"sparsity.target={control.rho:.3g} is out of reach: with all gates open the "
            f"encoder's own windows leave rho at {lowest:.3f} on {plan.subject}. Raise the target"
        )
    if control.rho > highest:
        raise ValueError(
            f"sparsity.target={control.rho:.3g} is out of reach for {plan.pattern} on "
            f"{plan.subject}: with all gates closed {plan.pattern.closed()} stays open, which "
            f"leaves rho at {highest:.3f} at the most. Lower the target or the local floor"
        )
    return control
