"""What a sweep will cost: by its own finished runs, else by FLOPs, else unsaid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aaa.experiments.sweep.estimate import Load, by_flops, estimate
from aaa.experiments.tables.cells import Cost

COST = Cost(weights=1e8, tokens=100, teraflops=10)
RUN = Load("bert_base_cased", steps=1000, batch=32, devices=4)


def result(seconds: float, **changes: Any) -> dict[str, Any]:
    done = {
        "model": "bert_base_cased",
        "wall_seconds": seconds,
        "steps": 500,
        "hardware": {"processes": 4},
        "config": {"training": {"batch_size": 16, "accumulate": 2}},
    }
    return done | changes


def test_by_finished_runs_of_its_kind() -> None:
    other = result(9e9, model="minilm")
    said = estimate([RUN, RUN], [result(900), result(2700), other], COST)
    # 1,000 steps take 1 hour on average, on 4 devices, twice
    assert said == "about 8.0 h of a device, by the finished runs of this sweep"
    epochs = Load("bert_base_cased", steps=None, batch=32, devices=4)
    assert estimate([epochs], [result(900)], None) == (
        "about 60 min of a device, by the finished runs of this sweep"
    )


def test_by_flops_where_none_is_finished() -> None:
    # 6 x 1e8 x (100 x 32 x 4 x 1000) FLOP = 7.68e15, at 1e13 a second
    said = estimate([RUN], [result(900, hardware={"processes": 1})], COST)
    assert said is not None
    assert said.startswith("about 0.213 GPU hours, by 6 FLOPs a weight and token at 10 TFLOP/s")
    assert said.endswith("(not measured)")


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert estimate([RUN], [], None) is None
    assert estimate([Load("tiny", None, 32, 1)], [], COST) is None
    assert estimate([RUN], [], replace(COST, weights={"mobilebert": 1e7})) is None


def test_each_encoder_has_its_own_weights_and_pre_training_its_own_tokens() -> None:
    cost = replace(COST, weights={"bert_base_cased": 1e8, "mobilebert": 2e7})
    run = replace(RUN, steps=1_000_000)
    said = [by_flops([r], cost) for r in (run, replace(run, model="mobilebert"))]
    assert [str(s)[:20] for s in said] == ["about 213 GPU hours,", "about 42.7 GPU hours"]
    assert str(by_flops([replace(run, tokens=1000)], cost)).startswith("about 2,133 GPU hours,")
