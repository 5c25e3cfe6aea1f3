"""A run's identity, and the errors that come before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aaa.experiments.plan import make_plan
from tests.experiments.conftest import Compose


def run_id(compose: Compose, *overrides: str) -> str:
    return make_plan(compose(*overrides)).run_id


@pytest.mark.parametrize(
    "override",
    ["run.output_dir=elsewhere", "logger=tensorboard", "run.accelerator=cpu", "run.log_every=3"],
)
def test_id_is_free_of_places(compose: Compose, override: str) -> None:
    assert run_id(compose, override) == run_id(compose)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "training.learning_rate=0.002",
        "training.gate_learning_rate=0.5",
        "pattern.local.size=1",
        "sparsity.alpha=11",
        "sparsity.target=0.5",
        "task.num_train=47",
        "model.layers=2",
        "data.max_length=32",
        "training.precision=bf16-mixed",
    ],
)
def test_id_follows_what_decides_the_numbers(compose: Compose, override: str) -> None:
    assert run_id(compose, override) != run_id(compose)


@pytest.mark.parametrize("override", ["sparsity.target=0.5", "training.gate_learning_rate=0.5"])
def test_id_of_fixed_patterns_is_free_of_what_they_do_not_read(
    compose: Compose, override: str
) -> None:
    assert run_id(compose, "pattern=full", override) == run_id(compose, "pattern=full")


def test_seeds_share_a_cell(compose: Compose) -> None:
    cells = {make_plan(compose(f"seed={seed}")).cell_id for seed in range(3)}
    assert len(cells) == 1
    assert cells != {make_plan(compose("sparsity.alpha=11")).cell_id}


def test_id_of_weights_is_their_content(compose: Compose, tmp_path: Path) -> None:
    def folder(name: str, weight: bytes) -> str:
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        (path / "model.safetensors").write_bytes(weight)
        return f"model.path={path}"

    first, copy, other = folder("a", b"1"), folder("b", b"1"), folder("c", b"2")
    ids = [
        run_id(compose, "scale=small", "task=demo_polarity", place)
        for place in (first, copy, other)
    ]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sparsity.target=1.0"], r"sparsity.target .* \[0, 1\)"),
        (["sparsity.target=-0.1"], r"sparsity.target .* \[0, 1\)"),
        (["sparsity.target=half"], "match:<pattern>"),
        (["sparsity.target=match:local9"], "unknown pattern 'local9'; known: aaa, full"),
        (["sparsity.target=match:aaa"], "itself learned"),
        (["sparsity.alpha=0"], "sparsity.alpha"),
        (["sparsity.ramp_end=2"], "sparsity.ramp_start and sparsity.ramp_end"),
        (["sparsity.ramp_start=0.9"], "sparsity.ramp_start and sparsity.ramp_end"),
        (["sparsity.noise_start=0.9", "sparsity.noise_end=0.5"], "sparsity.noise_start"),
        (["sparsity.margin=-1"], "sparsity.margin"),
        (["sparsity.alpha_schedule=cubic"], "known: constant, linear"),
        (["training.batch_size=0"], "training.batch_size must be 1 or more, not 0"),
        (["training.batch_size=many"], "training.batch_size must be a whole number, not 'many'"),
        (["training.learning_rate=-1"], "training.learning_rate must be above 0"),
        (["training.precision=fp8"], "32-true or bf16-mixed"),
        (["training.warmup=1.5"], "training.warmup"),
        (["training.max_steps=0"], "training.max_steps"),
        (["training.max_steps=null", "training.max_epochs=null"], "or training.max_epochs"),
        (["pattern=local2", "pattern.size=-1"], "Local size is a radius"),
        (["pattern=local2_global1_random1", "pattern.random.size=0"], "Random size"),
        (["task=demo_polarity", "task.kind=sarcasm"], "known kinds: acceptability"),
        (["run.accelerator=tpu"], "run.accelerator must be one of auto, cpu, gpu"),
        (["run.accelerator=gpu"], "no GPU"),
        (["seed=-1"], "seed must be"),
        (["task=rte", "data.path=./nowhere"], "there is no folder './nowhere'; data.path"),
        (["model=minilm", "model.path=/no/such/model"], "no folder '/no/such/model'; model"),
    ],
)  # fmt: skip
def test_bad_config_is_one_clear_error(compose: Compose, overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        make_plan(compose(*overrides))
    assert len(str(caught.value).splitlines()) == 1
