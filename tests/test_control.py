"""The control of rho: settings and schedules, targets by length, the hinge and the multiplier."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aaa import Local
from aaa.control import (
    USUAL_ALPHA,
    Controller,
    Kind,
    LengthTarget,
    SparsityControl,
    settle_level,
)
from aaa.control.level import LOOKS
from aaa.objective import sparsity_of_lengths


class TestSettings:
    def test_ramp_rises_to_the_target_and_stays(self) -> None:
        settings = SparsityControl(target=0.8, ramp_start=0.2, ramp_end=0.6)
        found = [settings.ramp_at(progress) for progress in (0, 0.2, 0.4, 0.6, 1)]
        assert found == pytest.approx([0, 0, 0.5, 1, 1])

    def test_no_ramp_is_the_papers(self) -> None:
        assert SparsityControl(target=0.8, ramp_start=0, ramp_end=0).ramp_at(0.0) == 1

    def test_noise_falls_to_none(self) -> None:
        settings = SparsityControl(target=0.8, noise_start=0.5, noise_end=0.75)
        found = [settings.noise_at(progress) for progress in (0, 0.5, 0.625, 0.75, 1)]
        assert found == pytest.approx([1, 1, 0.5, 0, 0])

    def test_noise_that_is_kept(self) -> None:
        settings = SparsityControl(target=0.8, noise_start=1, noise_end=1)
        assert [settings.noise_at(p) for p in (0, 0.5, 0.999)] == [1, 1, 1]

    def test_linear_alpha_reaches_its_maximum_at_half(self) -> None:
        settings = SparsityControl(target=0.8, alpha=6, alpha_schedule="linear")
        assert [settings.alpha_at(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([0, 3, 6, 6])

    @pytest.mark.parametrize("control", get_args(Kind))
    def test_each_control_has_a_usual_alpha(self, control: Kind) -> None:
        """What is usual for one would be far off for another."""
        usual = SparsityControl(target=0.8, control=control)
        assert usual.strength == USUAL_ALPHA[control]
        assert SparsityControl(target=0.8, control=control, alpha=7).strength == 7

    def test_constant_alpha(self) -> None:
        assert {SparsityControl(target=0.8, alpha=6).alpha_at(p) for p in (0, 0.3, 1)} == {6}

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"target": 1.0}, "sparsity.target"),
            ({"target": "local2"}, "match:<pattern>"),
            ({"control": "duel"}, "sparsity.control 'duel' is unknown, did you mean dual"),
            ({"alpha_schedule": "cosine"}, "sparsity.alpha_schedule"),
            ({"alpha": 0}, "sparsity.alpha"),
            ({"margin": -0.1}, "sparsity.margin"),
            ({"ramp_start": 0.6, "ramp_end": 0.5}, "sparsity.ramp_start"),
            ({"noise_end": 1.5}, "sparsity.noise_start"),
        ],
    )
    def test_bad_fields_are_named(self, wrong: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            SparsityControl(**{"target": 0.5, **wrong})  # type: ignore[arg-type]


LENGTHS = st.lists(st.integers(3, 60), min_size=20, max_size=80)


class TestLengthTarget:
    @given(evaluation=LENGTHS, share=st.floats(0.1, 1.0))
    def test_averages_to_the_target(self, evaluation: list[int], share: float) -> None:
        target = share * sparsity_of_lengths(Local(1), evaluation, num_layers=2)
        by_length = LengthTarget.fit(target, Local(1), 2, evaluation, evaluation)
        assert float(by_length.target_N[evaluation].mean()) == pytest.approx(target, abs=1e-5)
        assert by_length.weight_N[evaluation].tolist() == pytest.approx([1] * len(evaluation))

    @given(training=LENGTHS, evaluation=LENGTHS)
    def test_weights_keep_the_number_of_texts(
        self, training: list[int], evaluation: list[int]
    ) -> None:
        by_length = LengthTarget.fit(0.3, Local(0), 1, training, evaluation)
        assert float(by_length.weight_N[training].mean()) == pytest.approx(1, abs=1e-4)

    def test_texts_count_as_often_as_in_the_development_set(self) -> None:
        """Training has short texts for the most part, the development set long ones."""
        training, evaluation = [5] * 90 + [40] * 10, [5] * 20 + [40] * 80
        by_length = LengthTarget.fit(0.6, Local(0), 1, training, evaluation)
        assert by_length.weight_N[[5, 40]].tolist() == pytest.approx([0.2 / 0.9, 0.8 / 0.1])
        # A rule that reaches the target on the development set has no gap in training.
        rho_N = by_length.target_N
        gap = (by_length.weight_N * (by_length.target_N - rho_N))[training].mean()
        assert float(gap) == 0
        weighted = (by_length.weight_N * rho_N)[training].mean()
        assert float(weighted) == pytest.approx(0.6, abs=1e-4)

    def test_no_text_is_held_against_more_than_it_can_reach(self) -> None:
        by_length = LengthTarget.fit(0.99, Local(2), 1, [6, 30], [30, 50])
        highest = [sparsity_of_lengths(Local(2), [n], 1) for n in (6, 30, 50)]
        assert (by_length.target_N[[6, 30, 50]] <= torch.tensor(highest) + 1e-6).all()


def flat(control: Kind, num_batches: int = 100, **fields: Any) -> Controller:
    """A controller for texts of ten tokens, without ramp, to rho 0.5."""
    settings = SparsityControl(target=0.5, control=control, ramp_end=0.0, **fields)
    return Controller(settings, LengthTarget.fit(0.5, Local(0), 1, [10], [10]), num_batches)


def step(controller: Controller, rho: float, progress: float = 0.5) -> tuple[float, float]:
    """The term at a rho, and its derivative."""
    rho_B = torch.full((4,), rho, requires_grad=True)
    term = controller(rho_B, torch.full((4,), 10), progress)
    term.backward()
    assert isinstance(rho_B.grad, Tensor)
    return float(term.detach()), float(rho_B.grad.sum())


class TestHinge:
    @pytest.mark.parametrize("rho", [0.1, 0.49, 0.51, 0.8])
    def test_is_equation_10(self, rho: float) -> None:
        term, slope = step(flat("hinge", alpha=8.0), rho)
        assert term == pytest.approx(8 * max(0, 0.5 - rho), abs=1e-5)
        assert slope == pytest.approx(-8 if rho < 0.5 else 0, abs=1e-5)

    def test_linear_alpha(self) -> None:
        controller = flat("hinge", alpha=8.0, alpha_schedule="linear")
        assert step(controller, 0.25, progress=0.25)[0] == pytest.approx(4 * 0.25)


class TestDual:
    def test_pushes_to_the_target_from_both_sides(self) -> None:
        assert step(flat("dual"), 0.3)[1] < 0 < step(flat("dual"), 0.7)[1]

    def test_a_gap_that_stays_is_pushed_ever_harder(self) -> None:
        controller = flat("dual")
        slopes = [step(controller, 0.45)[1] for _ in range(20)]
        assert slopes == sorted(slopes, reverse=True)
        assert slopes[-1] < 1.3 * slopes[0] < 0

    def test_no_force_without_a_gap_but_that_of_the_past(self) -> None:
        controller = flat("dual")
        assert step(controller, 0.5)[1] == pytest.approx(0, abs=1e-4)
        for _ in range(10):
            step(controller, 0.45)
        assert step(controller, 0.5)[1] < -0.1  # what holds the task's pull in balance

    def test_the_level_of_all_logits_follows_the_gap(self) -> None:
        controller = flat("dual", num_batches=1000, noise_start=0.4, noise_end=0.6)
        step(controller, 0.47)
        assert controller.lowering == pytest.approx(0.03 / (0.01 * 1000 * 0.1), rel=1e-3)
        step(controller, 0.9)
        assert controller.lowering == pytest.approx(-0.3, rel=1e-3)  # of a large gap no more
        step(controller, 0.47, progress=0.9)  # settled at 0.6: a quarter of the way is left
        assert controller.lowering == pytest.approx(0.25 * 0.03 / (0.01 * 1000 * 0.1), rel=1e-3)
        short = flat("dual", num_batches=10)
        step(short, 0.47)
        assert short.lowering == pytest.approx(0.06, rel=1e-3)  # no faster, however few steps
        paper = flat("hinge")
        step(paper, 0.47)
        assert paper.lowering == 0

    @pytest.mark.parametrize("pull", [0.5, 4.0])
    def test_one_run_ends_at_the_target(self, pull: float) -> None:
        """A task that pulls rho down with constant force: the hinge would settle below."""
        controller, rho, total = flat("dual", num_batches=400), 0.0, 400
        for now in range(total):
            slope = step(controller, rho, now / total)[1]
            rho = min(1.0, max(0.0, rho - 0.005 * (slope + pull)))
        assert rho == pytest.approx(0.5, abs=0.01)

    def test_the_past_is_kept_in_checkpoints(self) -> None:
        controller, other = flat("dual"), flat("dual")
        for _ in range(5):
            step(controller, 0.4)
        other.load_state_dict(controller.state_dict())
        assert step(other, 0.5) == step(controller, 0.5)

    def test_no_force_before_the_target_begins_to_rise(self) -> None:
        settings = SparsityControl(target=0.5, control="dual", ramp_start=0.4, ramp_end=0.6)
        controller = Controller(settings, LengthTarget.fit(0.5, Local(0), 1, [10], [10]), 100)
        assert step(controller, 0.2, progress=0.3) == (0, 0)
        assert step(controller, 0.2, progress=0.5)[1] < 0

    def test_all_processes_drive_by_the_same_gap(self) -> None:
        controller = flat("dual")
        rho_B = torch.tensor([0.4])
        controller(rho_B, torch.tensor([10]), 0.5, average=lambda gap: gap + 0.1)
        assert controller.gap == pytest.approx(0.2)


class TestSettleLevel:
    """Against gates whose logits are known: rho is the share of them that is not above 0."""

    @staticmethod
    def settle(logits: Tensor, target: float, bound: float = math.inf) -> tuple[float, float, int]:
        """By what it lowered, rho then, and how often it looked."""
        level, looks = torch.zeros(1), []

        def measure() -> float:
            looks.append(((logits + level) <= 0).float().mean().item())
            return looks[-1]

        def lower(by: float) -> None:
            level.sub_(by).clamp_(-bound, bound)

        by, before, after = settle_level([level], lower, measure, target)
        assert before == pytest.approx(looks[0])
        assert after == pytest.approx(((logits + level) <= 0).float().mean().item())
        assert level.item() == pytest.approx(max(-bound, min(bound, -by)))
        return by, ((logits + level) <= 0).float().mean().item(), len(looks)

    @given(
        st.integers(0, 2**20), st.sampled_from([0.02, 0.5, 3.0]), st.floats(0.3, 0.95),
        st.floats(-0.15, 0.15),
    )  # fmt: skip
    def test_ends_at_the_target_in_few_looks(
        self, seed: int, spread: float, target: float, off: float
    ) -> None:
        """However many cells a logit closes, from above and from below."""
        noise = torch.Generator().manual_seed(seed)
        logits = spread * torch.randn(5000, generator=noise)
        logits -= logits.quantile(min(0.99, max(0.01, target + off)))
        _, rho, looks = self.settle(logits, target)
        assert rho == pytest.approx(target, abs=0.005)
        assert looks <= LOOKS

    def test_stays_where_it_is_when_it_is_there(self) -> None:
        by, _, looks = self.settle(torch.linspace(-7, 3, 1001), 0.7)
        assert (by, looks) == (0.0, 1)

    def test_takes_the_nearest_step_of_few(self) -> None:
        """Three diagonals: rho can be 1/3 or 2/3, nothing between."""
        by, rho, _ = self.settle(torch.tensor([-1.0, 0.2, 0.3]), 0.6)
        assert rho == pytest.approx(2 / 3)
        by, rho, _ = self.settle(torch.tensor([-1.0, 0.2, 0.3]), 0.4)
        assert (by, rho) == (0.0, pytest.approx(1 / 3))

    def test_what_is_nearest_within_bounds(self) -> None:
        _, rho, _ = self.settle(torch.linspace(0.1, 10, 100), 0.9, bound=2.0)
        assert rho == pytest.approx(0.2, abs=0.011)

    def test_gates_without_a_level_stay(self) -> None:
        weights, looks = torch.ones(3), []

        def measure() -> float:
            looks.append(0.4)
            return 0.4

        assert settle_level([weights], lambda by: None, measure, 0.7) == (0.0, 0.4, 0.4)
        assert weights.tolist() == [1, 1, 1]
        assert len(looks) == 1
