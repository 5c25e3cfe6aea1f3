"""Values that no run can have are refused by their key before any work starts."""

from __future__ import annotations

import pytest

from aaa.experiments.configs import compose_config
from aaa.experiments.plan import make_plan
from aaa.experiments.pretraining import make_pretraining_plan

INFINITE = [
    ("training.clip=inf", "training.clip must be a finite number, not inf"),
    ("training.learning_rate=inf", "training.learning_rate must be a finite number, not inf"),
    ("sparsity.alpha=inf", "sparsity.alpha must be a finite number, not inf"),
    ("run.log_every=[1,-inf]", r"run.log_every\[1\] must be a finite number, not -inf"),
]
COUNT = "must be a whole number of 1 or more, not"
SEED = "seed must be a whole number from 0 to 4294967295, not"
TARGET = r"sparsity.target is a number in \[0, 1\) or match:<pattern>, not"
WRONG = [
    ("data.max_length=abc", f"data.max_length {COUNT} 'abc'"),
    ("data.max_length=null", f"data.max_length {COUNT} None"),
    ("data.max_length=7.5", f"data.max_length {COUNT} 7.5"),
    ("run.checkpoint_every=abc", f"run.checkpoint_every {COUNT} 'abc'"),
    ("run.checkpoint_every=0", f"run.checkpoint_every {COUNT} 0"),
    ("run.log_every=true", f"run.log_every {COUNT} True"),
    ("run.progress=maybe", "run.progress must be true or false, not 'maybe'"),
    ("seed=99999999999", f"{SEED} 99999999999"),
    ("seed=true", f"{SEED} True"),
    ("training.max_steps=true", f"training.max_steps {COUNT} True"),
    ("training.batch_size=true", "training.batch_size must be a whole number, not True"),
    (
        "training.gradient_checkpointing=perhaps",
        "training.gradient_checkpointing must be true or false, not 'perhaps'",
    ),
    ("sparsity.target=null", f"{TARGET} None"),
    ("sparsity.target=[0.5]", rf"{TARGET} \[0.5\]"),
    ("sparsity.alpha=abc", "sparsity.alpha is a number above 0 or null, not 'abc'"),
    ("sparsity.margin=abc", r"sparsity.margin is a share of cells in \[0, 1\), not 'abc'"),
    ("sparsity.ramp_end=abc", "sparsity.ramp_start and sparsity.ramp_end are shares .* 'abc'"),
]


UNKNOWN = [
    ("+sede=1", "sede is unknown, did you mean seed?"),
    ("+max_steps=1", "max_steps is unknown, did you mean training.max_steps?"),
    ("+run.batch_size=1", "run.batch_size is unknown, did you mean training.batch_size?"),
    ("+data.maxlength=1", "data.maxlength is unknown, did you mean max_length?"),
    ("+run.output=here", "run.output is unknown, did you mean output_dir?"),
    ("+names.rwo=ours", "names.rwo is unknown, did you mean row?"),
    ("+logger.project=ours", "logger.project is unknown; known: run_id"),
]


def refuse(override: str, message: str) -> None:
    """In fine-tuning and in pre-training alike."""
    with pytest.raises(ValueError, match=f"^{message}"):
        make_plan(compose_config([override]))
    with pytest.raises(ValueError, match=f"^{message}"):
        make_pretraining_plan(compose_config([override], "pretrain"))


@pytest.mark.parametrize(("override", "message"), [*INFINITE, *WRONG, *UNKNOWN])
def test_values_are_refused_by_their_key(override: str, message: str) -> None:
    refuse(override, message)


KINDS = [
    (["task.num_validation=1.5"], "task.num_validation must be a whole number, not 1.5"),
    (["task.seed=x"], "task.seed must be a whole number, not 'x'"),
    (["model.layers=2.5"], "model.layers must be a whole number, not 2.5"),
    (["model.layers=true"], "model.layers must be a whole number, not True"),
    (["model.heads=two"], "model.heads must be a whole number, not 'two'"),
    (["model=lra", "model.dropout=a"], "model.dropout must be a number, not 'a'"),
    (
        ["task=rte", "task.revision=1234567"],
        "task.revision must be a text or null, not 1234567: quote it twice, "
        "\"task.revision='1234567'\"",
    ),
    (["task=imdb", "protocol=lra_ours", "task.held_out=0.1"], "task.held_out must be a whole"),
    (["task=imdb", "task.limits.train=1.5"], "task.limits.train must be a whole number or null"),
    (["task=imdb", "task.limits=7"], "task.limits must be a mapping, not 7"),
]
PRETRAINING_KINDS = [
    (["corpus.num_documents=2.5"], "corpus.num_documents must be a whole number, not 2.5"),
    (["scale=small", "tokenizer.lowercase=no"], "tokenizer.lowercase must be true or false"),
    (["scale=small", "data.config=2014"], "corpus.config must be a text, not 2014: quote it"),
]


@pytest.mark.parametrize(("overrides", "message"), KINDS)
def test_values_are_of_their_fields_kind(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make_plan(compose_config(overrides))


@pytest.mark.parametrize(("overrides", "message"), PRETRAINING_KINDS)
def test_values_are_of_their_fields_kind_in_pretraining(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make_pretraining_plan(compose_config(overrides, "pretrain"))


def test_a_text_of_digits_and_null_are_taken() -> None:
    quoted = compose_config(["task=rte", "task.revision='1234567'"])
    assert make_plan(quoted).task.revision == "1234567"  # type: ignore[attr-defined]
    assert make_plan(compose_config(["task=imdb", "task.limits.train=null"])).task.name == "imdb"


def test_numbers_of_patterns_are_finite() -> None:
    with pytest.raises(ValueError, match="initial_logit"):
        make_plan(compose_config(["+pattern.axis.initial_logit=nan"]))
