"""A loss that comes apart stops the training, and one that is merely uneven does not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from aaa.training.guard import SETTLING, Diverged, LossGuard


def see(guard: LossGuard, *losses: float | None) -> None:
    for step, loss in enumerate(losses, start=1):
        trainer: Any = SimpleNamespace(global_step=step)
        module: Any = SimpleNamespace(step_loss=loss)
        guard.on_train_batch_end(trainer, module)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_no_number(loss: float) -> None:
    with pytest.raises(Diverged, match=f"at step 2 the loss is {loss}.*lower training"):
        see(LossGuard(None), 9.0, 8.0, loss)


def test_a_spike() -> None:
    see(LossGuard(2.0), *[5.0] * SETTLING, 9.9, None, 9.9)
    with pytest.raises(Diverged, match=r"is 10\.5, 2\.1 times its running mean"):
        see(LossGuard(2.0), *[5.0] * SETTLING, 10.5)


def test_no_limit_no_spike() -> None:
    see(LossGuard(None), *[5.0] * SETTLING, 500.0)


def test_before_it_has_settled_and_near_zero_there_is_no_alarm() -> None:
    see(LossGuard(2.0), 1.0, 9.0)
    see(LossGuard(2.0), *[0.1] * SETTLING, 1.0)


def test_it_remembers_through_a_checkpoint() -> None:
    before, after = LossGuard(2.0), LossGuard(2.0)
    see(before, *[5.0] * SETTLING)
    after.load_state_dict(before.state_dict())
    with pytest.raises(Diverged):
        see(after, 11.0)
