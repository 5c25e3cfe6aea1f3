from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aaa.patterns.gumbel import LARGEST_LOGIT, gumbel_sigmoid, lower_level

TEMPERATURES = [0.3, 1.0, 2.0]


def test_evaluation_has_no_noise() -> None:
    logits = torch.tensor([-1e4, -1e-6, 0.0, 1e-6, 1e4], requires_grad=True)
    gates = gumbel_sigmoid(logits, training=False)
    assert gates.tolist() == [0, 0, 0, 1, 1]
    assert not gates.requires_grad


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("logit", [-3.0, -0.5, 0.0, 2.0])
def test_a_gate_is_open_with_probability_sigmoid(logit: float, temperature: float) -> None:
    count = 40_000
    gates = gumbel_sigmoid(torch.full((count,), logit), True, temperature)
    expected = 1 / (1 + math.exp(-logit))
    deviation = math.sqrt(expected * (1 - expected) / count)
    assert gates.mean().item() == pytest.approx(expected, abs=4 * deviation)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_straight_through(temperature: float) -> None:
    logits = torch.linspace(-4, 4, 101, requires_grad=True)
    torch.manual_seed(5)
    gates = gumbel_sigmoid(logits, True, temperature)
    (gradient,) = torch.autograd.grad(gates.sum(), logits)

    torch.manual_seed(5)  # the same noise: the quantile function of the logistic distribution
    noise = torch.logit(torch.rand(101).double())

    def soft(x: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-(x + noise) / temperature))

    exact = logits.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(soft(exact).sum(), exact)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(gates.detach().double(), (exact + noise > 0).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_and_gradients_stay_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([-1e4, 0.0, 1e4], dtype=dtype).repeat(1000).requires_grad_()
    gates = gumbel_sigmoid(logits, True, 0.1)
    gates.sum().backward()
    assert gates.dtype == torch.float32
    assert set(gates.tolist()) == {0.0, 1.0}
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


class TestBound:
    """A gate never gets so sure that no force can move it."""

    def gradient(self, logit: float, force: float) -> float:
        logits = torch.full((1000,), logit, requires_grad=True)
        (force * gumbel_sigmoid(logits, training=True)).sum().backward()
        assert logits.grad is not None
        return float(logits.grad.sum())

    @pytest.mark.parametrize("side", [1, -1])
    def test_beyond_it_only_a_pull_inward_is_felt(self, side: int) -> None:
        far = side * 40.0
        assert self.gradient(far, force=-side) == 0  # descent would move it further out
        assert self.gradient(far, force=side) * side > 0

    def test_within_it_nothing_changes(self) -> None:
        assert self.gradient(4.9, force=-1) < 0 < self.gradient(4.9, force=1)

    def test_sure_gates_still_close_now_and_then(self) -> None:
        logits = torch.full((100_000,), 1e4)
        closed = 1 - float(gumbel_sigmoid(logits, training=True).mean())
        assert closed == pytest.approx(1 / (1 + math.exp(LARGEST_LOGIT)), rel=0.2)
        assert bool((gumbel_sigmoid(logits, training=False) == 1).all())


def test_a_level_that_was_lowered_for_long_comes_back_at_once() -> None:
    """Without a bound, a layer whose gates were long closed had been closed for good."""
    weight = torch.tensor([2.0, -3.0]) / 32
    lower_level(weight, 1.0, gain=32)
    torch.testing.assert_close(32 * weight, torch.tensor([1.0, -4.0]))
    for _ in range(100):
        lower_level(weight, 1.0, gain=32)
    torch.testing.assert_close(32 * weight, torch.full((2,), -LARGEST_LOGIT))
    lower_level(weight, -2 * LARGEST_LOGIT - 1, gain=32)
    torch.testing.assert_close(32 * weight, torch.full((2,), LARGEST_LOGIT))
