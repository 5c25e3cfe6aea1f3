from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aaa.masks import SparseMask
from aaa.patterns import Degree, LayerInput, Local
from aaa.patterns.gumbel import SINGLE_LOGIT_GAIN
from tests.reference import keep_of, site


def bound(max_degree: int = 8, **options: float) -> Degree:
    degree = Degree(max_degree, **options).bind(site())
    assert isinstance(degree, Degree)
    return degree


def randomised(max_degree: int = 8, seed: int = 0, spread: float = 2.0) -> Degree:
    degree = bound(max_degree)
    generator = torch.Generator().manual_seed(seed)
    degree.degree_weights_HK.data.normal_(std=spread / SINGLE_LOGIT_GAIN, generator=generator)
    return degree


def gates(mask: SparseMask) -> torch.Tensor:
    assert mask.diagonals_BHK is not None
    return mask.diagonals_BHK[0]


@given(max_degree=st.integers(1, 20), seed=st.integers(0, 50))
def test_probabilities_are_those_of_the_degree_distribution(max_degree: int, seed: int) -> None:
    degree = randomised(max_degree, seed)
    share_HK = (SINGLE_LOGIT_GAIN * degree.degree_weights_HK.double()).softmax(-1)
    for offset in range(1, max_degree + 1):
        at_least_H = share_HK[:, offset:].sum(-1)
        torch.testing.assert_close(
            degree.probabilities()[:, offset - 1].double(), at_least_H, atol=1e-6, rtol=1e-5
        )


@given(max_degree=st.integers(1, 20), seed=st.integers(0, 50), training=st.booleans())
def test_open_offsets_are_the_first_ones(max_degree: int, seed: int, training: bool) -> None:
    degree = randomised(max_degree, seed).train(training)
    gates_HK = gates(degree(LayerInput(keep_of([5]))))
    assert gates_HK.shape == (2, max_degree + 1)
    assert set(gates_HK.unique().tolist()) <= {0.0, 1.0}
    assert (gates_HK[:, 0] == 1).all()
    assert (gates_HK.diff(dim=-1) <= 0).all()


def test_each_head_is_local_with_its_own_degree() -> None:
    degree = bound(8).eval()
    degree.degree_weights_HK.data.zero_()
    for head, wanted in enumerate((0, 3)):
        degree.degree_weights_HK.data[head, wanted] = 10.0
    keep_BN = keep_of([12, 7], [False, True])
    cells_BHNN = degree(LayerInput(keep_BN)).dense()
    for head, wanted in enumerate((0, 3)):
        expected = Local(wanted)(LayerInput(keep_BN)).dense()[:, 0]
        assert torch.equal(cells_BHNN[:, head], expected)


def test_draws_follow_the_distribution() -> None:
    degree, draws = randomised(6, spread=1.0).train(), 4000
    inputs = LayerInput(keep_of([3]))
    with torch.no_grad():
        share_HK = sum(gates(degree(inputs)) for _ in range(draws)) / draws
        expected_HK = torch.nn.functional.pad(degree.probabilities(), (1, 0), value=1.0)
    assert (share_HK - expected_HK).abs().max() < 5 * 0.5 / math.sqrt(draws)


def test_evaluation_is_the_median_and_training_without_noise_the_same() -> None:
    degree, inputs = randomised(15), LayerInput(keep_of([9]))
    evaluated = gates(degree.eval()(inputs))
    assert torch.equal(evaluated[:, 1:], (degree.probabilities() > 0.5).float())
    degree.train().noise_scale = 0.0
    assert torch.equal(gates(degree(inputs)), evaluated)


def test_gradient_is_that_of_the_sigmoid() -> None:
    """Straight-through: the slope of sum_k w_k sigmoid(logit P(degree >= k) + noise)."""
    degree, inputs = randomised(5, spread=0.5).train(), LayerInput(keep_of([9]))
    weights_K = torch.arange(1.0, 6.0)
    degree.noise_scale = 0.0
    (gates(degree(inputs))[:, 1:] * weights_K).sum().backward()
    start = degree.degree_weights_HK.data.double()

    def smooth(weights_HK: torch.Tensor) -> torch.Tensor:
        share_HK = (SINGLE_LOGIT_GAIN * weights_HK).softmax(-1)
        at_least = [share_HK[:, offset:].sum(-1) for offset in range(1, 6)]
        return (torch.stack(at_least, -1) * weights_K).sum()  # sigmoid(logit P) = P

    for head in range(2):
        for entry in range(6):
            step = torch.zeros_like(start)
            step[head, entry] = 1e-6
            slope = (smooth(start + step) - smooth(start - step)) / 2e-6
            assert degree.degree_weights_HK.grad is not None
            assert degree.degree_weights_HK.grad[head, entry].item() == pytest.approx(
                slope.item(), rel=1e-4, abs=1e-4
            )


def test_rho_pulls_the_degree_down() -> None:
    degree = bound(8).train()
    optimiser = torch.optim.Adam(degree.parameters(), lr=1e-3)
    inputs = LayerInput(keep_of([20, 12]))
    for _ in range(200):
        loss = torch.relu(0.7 - degree(inputs).sparsity().mean())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert degree.eval()(inputs).sparsity().mean() > 0.55


def test_the_start_is_nearly_the_whole_reach() -> None:
    probabilities_HK = bound(8, initial_logit=2.0).probabilities()
    lowest = probabilities_HK.min().item()
    assert lowest == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-6)
    assert torch.equal(
        bound(8).eval()(LayerInput(keep_of([30]))).dense()[:, :1],
        Local(8)(LayerInput(keep_of([30]))).dense(),
    )


def test_a_reach_beyond_the_text() -> None:
    mask = bound(500).eval()(LayerInput(keep_of([6, 4])))
    assert mask.sparsity().tolist() == [0.0, 0.0]


def test_closed_is_the_main_diagonal() -> None:
    degree = bound(4).eval()
    degree.degree_weights_HK.data[:, 0] = 50.0
    inputs = LayerInput(keep_of([6, 4]))
    assert torch.equal(degree(inputs).dense()[:, :1], degree.closed()(inputs).dense())
    assert Degree(4).learnable
    assert not list(Degree(4).parameters())


@pytest.mark.parametrize("options", [{"max_degree": 0}, {"temperature": 0.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"Degree .*{next(iter(options))}|temperature"):
        Degree(**options)  # type: ignore[arg-type]


@given(seed=st.integers(0, 50), by=st.floats(-1, 1), max_degree=st.integers(1, 20))
def test_lowering_is_the_same_for_every_offset(seed: int, by: float, max_degree: int) -> None:
    degree = randomised(max_degree, seed, spread=0.5)
    before_HK = degree.probabilities().double().logit()
    degree.lower(by)
    torch.testing.assert_close(
        degree.probabilities().double().logit(), before_HK - by, atol=1e-4, rtol=1e-4
    )
    degree.lower(-by)
    torch.testing.assert_close(
        degree.probabilities().double().logit(), before_HK, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("by", [1e3, -1e3])
def test_lowering_keeps_a_head_where_it_can_come_back_from(by: float) -> None:
    degree = randomised(8)
    degree.lower(by)
    logits_HK = degree.probabilities().logit()
    nearest_H = (logits_HK.amax(-1) if by > 0 else logits_HK.amin(-1)).abs()
    torch.testing.assert_close(nearest_H, torch.full_like(nearest_H, 5.0), atol=1e-2, rtol=0)
    degree.lower(by)  # there is no further
    torch.testing.assert_close(degree.probabilities().logit(), logits_HK, atol=1e-2, rtol=1e-3)
    degree.eval()
    assert (degree.probabilities() > 0.5).all() == (by < 0)


def test_lowering_leaves_alike_neighbours_finite() -> None:
    """A degree that has got so unlikely that P(degree >= k) is the same for k and the next."""
    degree = randomised(8, spread=1.0)
    with torch.no_grad():
        degree.degree_weights_HK[:, 4] = -40 / SINGLE_LOGIT_GAIN
    before = degree.probabilities()
    for _ in range(5):
        degree.lower(0.1)
    assert degree.degree_weights_HK.isfinite().all()
    expected = torch.sigmoid(torch.logit(before) - 0.5)
    torch.testing.assert_close(degree.probabilities(), expected, rtol=1e-3, atol=1e-5)
