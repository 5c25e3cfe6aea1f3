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
    ("+run.further=[1,-inf]", r"run.further\[1\] must be a finite number, not -inf"),
]


def refuse(override: str, message: str) -> None:
    """In fine-tuning and in pre-training alike."""
    with pytest.raises(ValueError, match=f"^{message}"):
        make_plan(compose_config([override]))
    with pytest.raises(ValueError, match=f"^{message}"):
        make_pretraining_plan(compose_config([override], "pretrain"))


@pytest.mark.parametrize(("override", "message"), INFINITE)
def test_numbers_are_finite(override: str, message: str) -> None:
    refuse(override, message)


def test_numbers_of_patterns_are_finite() -> None:
    with pytest.raises(ValueError, match=r"axis\.initial_logit must be a finite number"):
        make_plan(compose_config(["+pattern.axis.initial_logit=nan"]))
