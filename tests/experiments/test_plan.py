"""A run's identity, and the errors that come before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from aaa import Axis, Full, Global, InLayers, Local, Pattern
from aaa.experiments.plan import make_plan, matched_pattern, science
from aaa.experiments.prepare import prepare
from aaa.places import config_folder
from tests.experiments.conftest import Compose
from tests.needs import demo_parses, diagonals, overrides_for


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


def test_id_is_free_of_settings_that_came_later_and_are_as_before(compose: Compose) -> None:
    """Else every run that was finished before would be done again."""
    config = compose()
    plan = make_plan(config)
    assert plan.control is not None
    decides = science(config, plan.task, plan.encoder, plan.pattern, plan.control)["training"]
    assert decides.keys() & {"betas", "eps", "schedule", "decay", "keep"} == set()
    for override in ("training.keep=best", "training.betas=[0.9,0.98]"):
        assert run_id(compose, override) != plan.run_id


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
    ("overrides", "expected"),
    [
        (["pattern=local2", "pattern.layers=1-2"], InLayers(Local(2), "1-2")),
        (["pattern=local2", "pattern.layers=1-"], InLayers(Local(2), "1-")),
        (["pattern=full", "pattern.layers=1"], InLayers(Full(), 1)),
        (
            ["pattern=local2", "pattern.layers=[0,2]", "pattern.elsewhere=local3_global1"],
            InLayers(Local(2), [0, 2], Local(3) | Global(1)),
        ),
        (["pattern=aaa", "pattern.layers=2"], InLayers(Axis() | Local(2), 2)),
    ],
    ids=str,
)
def test_any_pattern_in_some_layers(
    compose: Compose, overrides: list[str], expected: Pattern
) -> None:
    plan = make_plan(compose(*overrides))
    assert plan.pattern.spec() == expected.spec()
    assert (plan.control is not None) == expected.learnable
    assert plan.run_id != run_id(compose, overrides[0])


def test_every_pattern_may_have_layers(compose: Compose, tmp_path: Path) -> None:
    for file in sorted((config_folder() / "pattern").glob("*.yaml")):
        needed = overrides_for(file.stem, tmp_path)
        whole = compose(f"pattern={file.stem}", *needed)
        assert (whole.pattern.layers, whole.pattern.elsewhere) == (None, None)
        some = make_plan(compose(f"pattern={file.stem}", "pattern.layers=2", *needed)).pattern
        assert isinstance(some, InLayers)
        assert some.inside.spec() == make_plan(whole).pattern.spec()


def test_id_follows_layers_and_what_is_elsewhere(compose: Compose) -> None:
    ids = {
        run_id(compose, *overrides)
        for overrides in (
            (), ("pattern.layers=1",), ("pattern.layers=2",),
            ("pattern.layers=1", "pattern.elsewhere=local2"),
            ("pattern.layers=1", "pattern.elsewhere=local2_global2"),
        )
    }  # fmt: skip
    assert len(ids) == 5


def test_id_of_copied_diagonals_is_their_content(compose: Compose, tmp_path: Path) -> None:
    def source(name: str) -> Path:
        (tmp_path / name).mkdir()
        return diagonals(tmp_path / name)

    def own_id(path: Path) -> str:
        return run_id(compose, "pattern=diagonal_fixed_global1", f"pattern.source={path}")

    first, same, other = source("a"), source("b"), source("c")
    weights = load_file(other)
    next(iter(weights.values())).neg_()
    save_file(weights, str(other))
    assert own_id(first) == own_id(same) != own_id(other)


def test_a_source_may_be_the_id_of_a_run(compose: Compose) -> None:
    config = compose("pattern=diagonal_fixed_global1", "pattern.source=0123456789ab")
    directory = Path(config.run.output_dir) / "runs" / "0123456789ab"
    directory.mkdir(parents=True)
    diagonals(directory).rename(directory / "model.safetensors")
    assert not make_plan(config).pattern.learnable
    assert config.pattern.diagonal.source == str(directory)  # where its workers find it too


def test_matched_patterns_in_some_layers(compose: Compose) -> None:
    plan = make_plan(compose("pattern.layers=1", "sparsity.target=match:local2"))
    assert plan.control is not None
    assert matched_pattern(plan.control).spec() == Local(2).spec()


def test_layers_are_checked_before_any_training(compose: Compose) -> None:
    for overrides in (["pattern=local2", "pattern.layers=6-11"], ["pattern.layers=6-11"]):
        with pytest.raises(ValueError, match="layers 6-11: this encoder has 3 layers"):
            prepare(make_plan(compose(*overrides)))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["sparsity.target=1.0"], r"sparsity.target .* \[0, 1\)"),
        (["sparsity.target=-0.1"], r"sparsity.target .* \[0, 1\)"),
        (["sparsity.target=half"], "match:<pattern>"),
        (["sparsity.target=match:local9"], "sparsity.target: pattern 'local9' is unknown, did"),
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
        (["pattern=local2", "pattern.size=-1"], "Local size is a"),
        (["pattern=local2_global1_random1", "pattern.random.size=0"], "Random size"),
        (["pattern=local2_global2", "pattern.global.size=1.5"], "from 1 on, not 1.5"),
        (["pattern=local2", "pattern.size=true"], "Local size is .* not True"),
        (["pattern.layers=last"], "layers are numbers from 0, such as 6-11"),
        (["pattern.layers=1", "pattern.elsewhere=local9"], "elsewhere: pattern 'local9' is"),
        (["pattern.elsewhere=local2"], "pattern.elsewhere is for layers outside pattern.layers"),
        (["pattern=diagonal_fixed_global1"], "pattern.source is missing"),
        (["pattern=diagonal_fixed_global1", "pattern.source=/none"], "no weights in '/none'"),
        (["pattern=diagonal_layer_global1", "pattern.diagonal.scope=x"], "'x' is unknown"),
        (
            ["sparsity.target=match:diagonal_fixed_global1"],
            "add the run or folder that it is copied from, match:diagonal_fixed_global1:<source>",
        ),
        (["sparsity.target=match:local2:a"], "local2 is not copied from anything"),
        (["task=demo_polarity", "task.kind=sarcasm"], "known: acceptability"),
        (["logger=wandb", "logger.mode=onlin"], "'onlin' is unknown, did you mean online"),
        (["run.executor=exportable"], "is for inference: train with run.executor=auto"),
        (["run.executor=sdpa", "pattern=aaa"], "gives no gradient to gates"),
        (["run.executor=flex", "pattern=aaa"], "gives no gradient to gates"),
        (["run.executor=flex", "pattern=local2"], "trains on GPUs alone"),
        (["run.executor=triton", "pattern=aaa"], "trains on GPUs alone"),
        (["run.accelerator=tpu"], "run.accelerator 'tpu' is unknown"),
        (["run.accelerator=gpu"], "no GPU"),
        (["run.executor=gatherd"], "executor .gatherd. is unknown, did you mean gathered"),
        (["seed=-1"], "seed must be"),
        (["data.path=./nowhere"], r"^data.path=./nowhere would do nothing: task=demo_s.*=cola"),
        (["data.revision=v1"], "data.revision=v1 would do nothing: task=demo_similarity"),
        (["task=rte", "data.path=./nowhere"], "there is no folder './nowhere'; data.path"),
        (["model=minilm", "model.path=/no/such/model"], "no folder '/no/such/model'; model"),
    ],
)  # fmt: skip
def test_bad_config_is_one_clear_error(compose: Compose, overrides: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        make_plan(compose(*overrides))
    assert len(str(caught.value).splitlines()) == 1


def test_a_syntax_pattern_asks_for_parses(compose: Compose) -> None:
    with pytest.raises(ValueError, match=r"spacy:<model> or .*conllu:<file"):
        make_plan(compose("pattern=syntax"))


def test_parses_are_in_the_identity_by_content(compose: Compose, tmp_path: Path) -> None:
    file = demo_parses(tmp_path, num_texts=60)
    first = run_id(compose, "pattern=syntax", f"data.parses=conllu:{file}")
    moved = file.rename(tmp_path / "moved.conllu")
    assert run_id(compose, "pattern=syntax", f"data.parses=conllu:{moved}") == first
    moved.write_text(moved.read_text() + moved.read_text().replace("dep", "other"))
    assert run_id(compose, "pattern=syntax", f"data.parses=conllu:{moved}") != first
    # where no pattern reads them they are not even opened
    assert run_id(compose, "data.parses=conllu:nowhere") == run_id(compose)


def test_a_text_without_a_parse_stops_before_training(compose: Compose, tmp_path: Path) -> None:
    file = demo_parses(tmp_path, num_texts=2)
    plan = make_plan(compose("pattern=syntax", f"data.parses=conllu:{file}"))
    with pytest.raises(ValueError, match="has no parse of the text 'there is"):
        prepare(plan)


@pytest.mark.parametrize("pattern", ["neighbour", "random_density", "lexical", "syntax"])
def test_patterns_at_a_density_can_be_matched(compose: Compose, pattern: str) -> None:
    prepared = prepare(make_plan(compose(f"sparsity.target=match:{pattern}")))
    assert prepared.control is not None
    assert prepared.control.target == pytest.approx(0.78, abs=0.005)
