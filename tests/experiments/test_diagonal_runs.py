"""Runs with learned diagonals, and runs that copy them."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from aaa import Diagonal, load_sparse, sparsity
from aaa.data.batching import Collate
from aaa.experiments.plan import make_plan
from aaa.experiments.prepare import prepare
from aaa.experiments.result import MODEL
from aaa.experiments.run import Outcome, run
from tests.experiments.conftest import Compose

CLOSING = (
    "sparsity.target=0.9",
    "sparsity.ramp_start=0",
    "sparsity.ramp_end=0",
    "training.gate_learning_rate=1.0",
)


def finished(outcome: Outcome) -> Path:
    assert outcome.status == "finished", outcome.result
    return outcome.directory


def learned(directory: Path) -> tuple[torch.nn.Module, list[Diagonal]]:
    model = load_sparse(directory / MODEL)
    return model, [part for part in model.modules() if isinstance(part, Diagonal)]


@pytest.mark.parametrize(("scope", "count"), [("task", 1), ("layer", 3), ("head", 3)])
def test_a_run_can_be_copied(
    compose: Compose,
    scope: str,
    count: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "aaa")
    config = compose(f"pattern=diagonal_{scope}_global1", *CLOSING)
    source = finished(run(config))
    model, diagonals = learned(source)
    assert len(diagonals) == count
    assert any((diagonal.distance_weights_HK < 0).any() for diagonal in diagonals)
    again = compose("pattern=diagonal_fixed_global1", f"pattern.source={source.name}")
    copied = finished(run(again))
    assert "were not seen in its training and stay closed" in caplog.text
    prepared = prepare(make_plan(config))
    batch = Collate(prepared.tokenizer, True)(list(prepared.splits["validation"]))
    batch.pop("labels")
    with torch.no_grad():
        model(**batch)
        expected = float(sparsity(model))
        other = load_sparse(copied / MODEL)
        other(**batch)
    assert 0 < expected < 1
    assert float(sparsity(other)) == pytest.approx(expected, abs=1e-6)
    target = f"sparsity.target=match:diagonal_fixed_global1:{source.name}"
    matched = make_plan(compose("pattern=diagonal_layer_global1", target))
    control = prepare(matched).control
    assert control is not None
    assert control.target == pytest.approx(expected, abs=1e-6)
    elsewhere = shutil.copytree(source, tmp_path / "elsewhere")  # the same diagonals: the same run
    target = f"sparsity.target=match:diagonal_fixed_global1:{elsewhere}"
    assert make_plan(compose("pattern=diagonal_layer_global1", target)).run_id == matched.run_id


def test_a_source_of_another_shape_is_refused(compose: Compose) -> None:
    source = finished(run(compose("pattern=diagonal_layer_global1")))
    config = compose(
        "model.layers=2", "pattern=diagonal_fixed_global1", f"pattern.source={source}"
    )
    with pytest.raises(ValueError, match="diagonals in layers 0,1,2, this encoder has 2 layers"):
        run(config)


def test_longest_text_is_that_of_all_training(compose: Compose) -> None:
    config = compose(
        "pattern=diagonal_head_global1", "training.max_epochs=1", "training.max_steps=null"
    )
    _, diagonals = learned(finished(run(config)))
    longest = max(prepare(make_plan(config)).splits["train"]["length"])
    assert {int(diagonal.seen_tokens) for diagonal in diagonals} == {longest}


@pytest.mark.slow
def test_two_processes_have_seen_the_same(compose: Compose) -> None:
    config = compose(
        "pattern=diagonal_task_global1", "training.devices=2", "training.batch_size=4",
        "training.max_epochs=1", "training.max_steps=null",
    )  # fmt: skip
    _, diagonals = learned(finished(run(config)))
    longest = max(prepare(make_plan(config)).splits["train"]["length"])
    assert {int(diagonal.seen_tokens) for diagonal in diagonals} == {longest}
