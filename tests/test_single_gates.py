"""Gates that are turned one by one where no level of all of them brings rho to its target."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from aaa import Axis, Global, Local, Random, gate_parameters, sparsify, sparsity
from aaa.control import settle_gates
from aaa.control.single_gates import NEAR_ENOUGH, TURNS
from aaa.objective import gate_shares
from aaa.patterns import Degree, Diagonal, InLayers, Pattern
from aaa.patterns.base import DistanceGate
from aaa.sparse import sparse_layers
from tests.conftest import EncoderFactory

LENGTHS = [4, 7, 9, 9, 12]


def rho_of(model: PreTrainedModel) -> float:
    """Of texts of ``LENGTHS``."""
    keep_BN = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(-1)
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.ones_like(keep_BN).long(), attention_mask=keep_BN.long())
    return float(sparsity(model))


def with_gates(make_encoder: EncoderFactory, pattern: Pattern) -> PreTrainedModel:
    """An encoder under the pattern, its gates open or closed at random."""
    model = sparsify(make_encoder(), pattern)
    torch.manual_seed(0)
    for parameter in gate_parameters(model):
        parameter.data.normal_()
    return model


@pytest.mark.parametrize(
    "pattern",
    [
        Diagonal("task"),
        Diagonal("layer"),
        Diagonal("head"),
        InLayers(Diagonal("layer"), "1-"),
        Diagonal("task") | Global(1),
        Diagonal("head") | Local(2) | Random(2),
    ],
    ids=str,
)
def test_a_turned_gate_moves_rho_by_its_share(
    make_encoder: EncoderFactory, pattern: Pattern
) -> None:
    model = with_gates(make_encoder, pattern)
    before = rho_of(model)
    shares = gate_shares(model, LENGTHS)
    assert shares
    for gate in list(shares)[:: max(1, len(shares) // 12)]:
        was_open = gate.is_open
        gate.turn()
        moved = rho_of(model) - before
        assert moved == pytest.approx(shares[gate] * (1 if was_open else -1), abs=1e-6)
        gate.turn()
    assert rho_of(model) == pytest.approx(before, abs=1e-7)


def test_shares_are_of_cells_within_a_layers_own_window(make_encoder: EncoderFactory) -> None:
    model = with_gates(make_encoder, Diagonal("task") | Global(1))
    for layer in sparse_layers(model):
        layer.window = 3
    before = rho_of(model)
    shares = gate_shares(model, LENGTHS)
    for gate in list(shares)[:6]:
        was_open = gate.is_open
        gate.turn()
        moved = rho_of(model) - before
        assert moved == pytest.approx(shares[gate] * (1 if was_open else -1), abs=1e-6)
        assert (shares[gate] > 0) == (gate.distance <= 3)
        gate.turn()


def test_there_is_one_for_each_distance_that_was_seen(make_encoder: EncoderFactory) -> None:
    model = with_gates(make_encoder, Diagonal("head", num_distances=8))
    config = model.config
    number = 8 * config.num_attention_heads * config.num_hidden_layers
    assert len(gate_shares(model, LENGTHS)) == number
    for part in model.modules():
        if isinstance(part, Diagonal):
            part.seen_tokens.fill_(5)
    assert {gate.distance for gate in gate_shares(model, LENGTHS)} == {1, 2, 3, 4}


def test_gates_that_read_the_text_are_none(make_encoder: EncoderFactory) -> None:
    assert not gate_shares(with_gates(make_encoder, Axis() | Degree(4)), LENGTHS)


def test_a_target_between_two_levels_is_met(make_encoder: EncoderFactory) -> None:
    """Long diagonals are decided to stay closed, so that every level is far from the target."""
    model = sparsify(make_encoder(), Diagonal("task", num_distances=11) | Global(1))
    [weights_1K] = gate_parameters(model)
    with torch.no_grad():
        weights_1K.copy_(torch.tensor([[0.3, 0.2, 0.1, -0.1, -0.2, -0.3, *[-1.0] * 5]]))
    begun = rho_of(model)
    weights_1K.data[0, 2] = -0.1  # the next level
    target = (begun + rho_of(model)) / 2
    weights_1K.data[0, 2] = 0.1
    assert abs(target - begun) > 0.01
    turned = settle_gates(gate_shares(model, LENGTHS), lambda: rho_of(model), begun, target)
    assert 0 < turned <= TURNS
    assert rho_of(model) == pytest.approx(target, abs=0.01)
    assert weights_1K[0, 0] > 0  # what is most decided stays
    assert weights_1K[0, 1] > 0


class TestSettleGates:
    """Against gates of known shares, rho being what the closed ones hold."""

    @staticmethod
    def settle(shares: list[float], weights: list[float], target: float) -> tuple[float, int, int]:
        """rho then, how many were turned, and how often it was measured."""
        entries, looks = torch.tensor(weights, dtype=torch.float64), []
        gates = {DistanceGate(entries, (k,), k + 1, 1.0): share for k, share in enumerate(shares)}

        def rho() -> float:
            return sum(share for gate, share in gates.items() if not gate.is_open)

        def measure() -> float:
            looks.append(rho())
            return looks[-1]

        turned = settle_gates(gates, measure, rho(), target)
        return rho(), turned, len(looks)

    @given(
        st.lists(st.tuples(st.floats(0.001, 0.1), st.floats(-1, 1)), min_size=1, max_size=30),
        st.floats(0, 1),
    )
    def test_never_ends_further_away(
        self, gates: list[tuple[float, float]], target: float
    ) -> None:
        shares, weights = [share for share, _ in gates], [weight for _, weight in gates]
        before = sum(share for share, weight in gates if weight <= 0)
        rho, turned, looks = self.settle(shares, weights, target)
        assert abs(target - rho) <= abs(target - before)
        assert turned <= TURNS
        assert looks <= TURNS
        if abs(target - before) <= NEAR_ENOUGH:
            assert (turned, looks) == (0, 0)

    def test_takes_one_of_the_missing_size(self) -> None:
        rho, turned, looks = self.settle([0.5, 0.04, 0.02, 0.01], [-1, 0.1, 0.9, 0.5], 0.52)
        assert (rho, turned, looks) == (pytest.approx(0.52), 1, 1)

    def test_of_alike_ones_the_least_decided(self) -> None:
        entries = torch.tensor([-1.0, 0.4, 0.3, 0.9])
        gates = {DistanceGate(entries, (k,), k + 1, 1.0): 0.02 for k in range(4)}
        assert settle_gates(gates, lambda: 0.04, 0.02, 0.04) == 1
        assert [gate.is_open for gate in gates] == [False, True, False, True]

    def test_opens_what_is_closed_too_much(self) -> None:
        rho, turned, _ = self.settle([0.5, 0.04, 0.02], [1, -0.1, -0.1], 0.04)
        assert (rho, turned) == (pytest.approx(0.04), 1)

    def test_makes_up_for_a_turn_that_was_too_much(self) -> None:
        rho, turned, _ = self.settle([0.5, 0.04, 0.02], [-1, 1, -1], 0.54)
        assert (rho, turned) == (pytest.approx(0.54), 2)

    def test_undoes_what_leads_away(self) -> None:
        assert self.settle([0.5, 0.025], [-1, 1], 0.51) == (pytest.approx(0.5), 0, 1)

    def test_leaves_alone_what_is_much_too_large(self) -> None:
        assert self.settle([0.5, 0.04], [-1, 1], 0.51) == (pytest.approx(0.5), 0, 0)

    def test_a_gate_at_zero_is_closed_and_can_be_opened(self) -> None:
        rho, turned, _ = self.settle([0.03], [0.0], 0.0)
        assert (rho, turned) == (0.0, 1)
