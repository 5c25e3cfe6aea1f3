"""The data and the target of a run: loaded, encoded and checked against what can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from aaa.data.encode import encode
from aaa.experiments.plan import Plan, matched_pattern
from aaa.objective import Hinge, sparsity_of_lengths

# Texts of which more than this share of the tokens is unknown belong to another tokenizer.
MAX_UNKNOWN = 0.2


@dataclass(frozen=True)
class Prepared:
    """Encoded splits, the tokenizer that made them, and the objective with its target a number."""

    splits: dict[str, Dataset]
    tokenizer: PreTrainedTokenizerFast
    hinge: Hinge | None


def prepare(plan: Plan) -> Prepared:
    """Loads and encodes the data (from the cache, if it was encoded before) and fixes the target.

    Raises:
        ValueError: if data or tokenizer cannot be had, do not fit each other, or the target is
            above what the pattern can reach on this data.
    """
    tokenizer = plan.encoder.tokenizer()
    fingerprint = plan.task.fingerprint()
    cache = Path(plan.config.run.output_dir) / "cache"
    splits = {
        name: encode(
            split, tokenizer, plan.task.columns, plan.config.data.max_length, fingerprint, cache
        )
        for name, split in plan.task.load().items()
    }
    _check_vocabulary(plan, splits["validation"], tokenizer)
    hinge = None
    if plan.hinge is not None:
        hinge = _reachable(plan, plan.hinge, splits["validation"]["length"][:])
    return Prepared(splits, tokenizer, hinge)


def _check_vocabulary(plan: Plan, split: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [token for row in split[:200]["input_ids"] for token in row]
    unknown = ids.count(tokenizer.unk_token_id) / max(1, len(ids))
    if unknown > MAX_UNKNOWN:
        raise ValueError(
            f"the tokenizer of model={plan.config.names.model} does not know {unknown:.0%} of the "
            f"tokens of task={plan.task.name}: choose a model that was made for such texts, for "
            "example model=minilm for the GLUE tasks or model=tiny for the demo tasks"
        )


def _reachable(plan: Plan, hinge: Hinge, lengths: Sequence[int]) -> Hinge:
    """The hinge with its target as a number, if the pattern can get there on texts so long."""
    num_layers = plan.encoder.num_layers
    highest = sparsity_of_lengths(plan.pattern.closed(), lengths, num_layers)
    if hinge.matched_pattern is not None:
        fixed = matched_pattern(hinge)
        hinge = replace(hinge, target=sparsity_of_lengths(fixed, lengths, num_layers))
    assert isinstance(hinge.target, float | int)
    if hinge.target > highest:
        raise ValueError(
            f"sparsity.target={hinge.target:.3g} is out of reach for {plan.pattern} on "
            f"{plan.task.name}: with all gates closed {plan.pattern.closed()} stays open, which "
            f"leaves rho at {highest:.3f} at the most. Lower the target or the local floor"
        )
    return hinge
