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


def test_numbers_of_patterns_are_finite() -> None:
    with pytest.raises(ValueError, match="initial_logit"):
        make_plan(compose_config(["+pattern.axis.initial_logit=nan"]))
