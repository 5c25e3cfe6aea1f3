"""Groups of parameters and the schedule of their rates."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from aaa import Axis, Full, Local, gate_parameters, sparsify
from aaa.training.optimiser import parameter_groups, rate_schedule
from tests.conftest import EncoderFactory
from tests.training.test_settings import settings


def test_every_parameter_is_in_one_group(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder(), Axis() | Local(1))
    groups = parameter_groups(model, settings(weight_decay=0.1))
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_gates_have_their_own_rate_and_no_decay(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder(), Axis())
    *_, gates = parameter_groups(model, settings(gate_learning_rate=0.5, weight_decay=0.1))
    assert (gates["lr"], gates["weight_decay"]) == (0.5, 0.0)
    assert {id(p) for p in gates["params"]} == {id(p) for p in gate_parameters(model)}


def test_biases_and_norms_do_not_decay(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder(), Full())
    decayed, undecayed = parameter_groups(model, settings(weight_decay=0.1))
    assert decayed["weight_decay"] == 0.1
    assert undecayed["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(
        "bias" not in names[id(p)] and "Norm" not in names[id(p)] for p in decayed["params"]
    )
    assert all("bias" in names[id(p)] or "Norm" in names[id(p)] for p in undecayed["params"])


def test_everything_but_gates_decays_where_asked(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder(), Axis())
    decays = [
        group["weight_decay"]
        for group in parameter_groups(model, settings(weight_decay=0.1, decay="all"))
    ]
    assert decays == [0.1, 0.1, 0.0]


def rates(warmup: float, total: int, peak: float = 1.0, **changes: Any) -> list[float]:
    optimiser = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=peak)
    schedule = rate_schedule(optimiser, settings(warmup=warmup, **changes), total)
    found = []
    for _ in range(total):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_linear_decay_as_hugging_face_has_it() -> None:
    from transformers import get_linear_schedule_with_warmup

    optimiser = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimiser, 0, 10)
    expected = []
    for _ in range(10):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        theirs.step()
    assert rates(0.0, 10) == pytest.approx(expected)


def test_warmup_rises_to_the_peak_without_a_lost_step() -> None:
    found = rates(0.4, 10)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[0] > 0
    assert found[4:] == sorted(found[4:], reverse=True)


def test_rsqrt_is_long_range_arenas() -> None:
    """Its create_learning_rate_scheduler, "constant * linear_warmup * rsqrt_decay", of 0.05."""
    steps, warmup = 200, 80
    theirs = [0.05 * min(1, t / warmup) / math.sqrt(max(t, warmup)) for t in range(1, steps + 1)]
    found = rates(warmup / steps, steps, peak=0.05 / math.sqrt(warmup), schedule="rsqrt")
    assert found == pytest.approx(theirs)
