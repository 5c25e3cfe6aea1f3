"""Every shipped config composes, is instantiated, and trains for two batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from aaa.data.imdb import ImdbTask
from aaa.data.task import Task
from aaa.experiments.configs import compose_config
from aaa.experiments.plan import make_plan
from aaa.experiments.run import run
from aaa.models import Encoder
from aaa.models.lra import LraEncoder
from aaa.patterns import Pattern
from aaa.places import config_folder
from tests.needs import overrides_for
from tests.wandb_files import written_runs


def names(group: str) -> list[str]:
    found = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
    assert found, f"conf/{group} is empty"
    return found


DEMO = [name for name in names("task") if name.startswith("demo_")]
GLUE = [name for name in names("task") if name != "imdb" and not name.startswith("demo_")]


def two_batches(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    config = compose_config(
        [
            "task.num_train=16", "task.num_validation=8", "training.max_steps=2",
            "training.batch_size=8", "training.evaluations=1", "run.progress=false",
            f"run.output_dir={tmp_path}", *overrides,
        ]
    )  # fmt: skip
    outcome = run(config)
    assert outcome.status == "finished", outcome.result
    assert outcome.result is not None
    return outcome.result


def test_the_eight_tasks_of_the_paper_and_six_demo_tasks_are_there() -> None:
    assert set(GLUE) == {"cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb"}
    assert len(DEMO) == 6


@pytest.mark.parametrize("pattern", names("pattern"))
def test_every_pattern_trains(pattern: str, tmp_path: Path) -> None:
    needed = overrides_for(pattern, tmp_path)
    assert two_batches(tmp_path, f"pattern={pattern}", *needed)["pattern"] == pattern


@pytest.mark.parametrize("task", DEMO)
def test_every_demo_task_trains(task: str, tmp_path: Path) -> None:
    assert two_batches(tmp_path, f"task={task}")["task"] == task


@pytest.mark.parametrize("logger", names("logger"))
def test_every_logger_logs(logger: str, tmp_path: Path) -> None:
    two_batches(tmp_path, f"logger={logger}")


@pytest.mark.parametrize("logger", names("logger"))
def test_every_logger_logs_pre_training(logger: str, tmp_path: Path) -> None:
    """Its config is another, in which a logger has to find all that it names runs by."""
    config = compose_config(
        [
            f"logger={logger}", "corpus.num_documents=200", "data.held_out=0.05",
            "training.max_steps=2", "training.batch_size=4", "training.evaluations=1",
            "run.progress=false", "run.num_workers=1", f"run.output_dir={tmp_path}",
        ],
        "pretrain",
    )  # fmt: skip
    outcome = run(config)
    assert outcome.status == "finished", outcome.result
    if logger == "wandb":
        [written] = written_runs(outcome.directory)
        assert written.run["display_name"] == "demo_corpus full seed 0"
        assert set(written.run["tags"]) == {"tiny", "full", "demo_corpus"}
        assert written.run["job_type"] == "full"


@pytest.mark.parametrize("task", GLUE)
def test_every_glue_task_is_instantiated(task: str) -> None:
    config = compose_config(["scale=small", f"task={task}", "data.path=owner/data"])
    built = instantiate(config.task)
    assert isinstance(built, Task)
    assert built.name == task
    assert built.fingerprint() == "owner/data@main"


PAPERS_METRIC = {
    "mnli": "accuracy", "qqp": "f1", "qnli": "accuracy", "sst2": "accuracy", "cola": "matthews",
    "stsb": "spearman", "mrpc": "f1", "rte": "accuracy",
}  # fmt: skip


@pytest.mark.parametrize(("task", "metric"), PAPERS_METRIC.items())
def test_the_headline_is_the_papers_metric(task: str, metric: str) -> None:
    assert instantiate(compose_config([f"task={task}"]).task).headline == metric


@pytest.mark.parametrize("model", names("model"))
def test_every_model_is_instantiated(model: str) -> None:
    config = compose_config([f"model={model}"])
    assert isinstance(instantiate(config.model), Encoder)
    assert config.training.learning_rate > 0


@pytest.mark.parametrize("scale", names("scale"))
def test_every_scale_is_a_plan(scale: str) -> None:
    plan = make_plan(compose_config([f"scale={scale}", "run.accelerator=cpu"]))
    assert plan.settings.total_steps(100) > 0


def test_the_papers_scale_is_the_papers() -> None:
    settings = make_plan(compose_config(["scale=paper", "run.accelerator=cpu"])).settings
    assert (settings.max_steps, settings.batch_size, settings.devices) == (30_000, 32, 4)


@pytest.mark.parametrize("protocol", names("protocol"))
def test_every_protocol_is_a_plan_at_any_scale(protocol: str) -> None:
    """It is a published setting as a whole: no scale's steps or devices get into it."""
    plans = [
        make_plan(
            compose_config([f"protocol={protocol}", f"scale={scale}", "run.accelerator=cpu"])
        )
        for scale in ("demo", "small", "paper")
    ]
    assert len({plan.run_id for plan in plans}) == 1
    assert plans[0].settings.world_size == 1


def test_long_range_arenas_code() -> None:
    """The figures of its base_tc_config.py, its optimiser, and its splits."""
    plan = make_plan(compose_config(["protocol=lra_code", "run.accelerator=cpu"]))
    settings, encoder, task = plan.settings, plan.encoder, plan.task
    assert isinstance(encoder, LraEncoder)
    assert isinstance(task, ImdbTask)
    assert (encoder.layers, encoder.hidden_size, encoder.heads) == (4, 256, 4)
    assert (encoder.intermediate_size, encoder.max_length) == (1024, 1001)
    assert (settings.max_steps, settings.batch_size) == (20_000, 32)
    assert settings.warmup * 20_000 == pytest.approx(8000)
    assert settings.learning_rate == pytest.approx(0.05 / 8000**0.5, rel=1e-4)
    assert (settings.schedule, settings.decay, settings.clip) == ("rsqrt", "all", None)
    assert (settings.betas, settings.eps, settings.weight_decay) == ((0.9, 0.98), 1e-9, 0.1)
    assert task.splits == {"train": "train", "validation": "test"}
    assert compose_config(["protocol=lra_4k"]).data.max_length == 4001


def test_our_protocol_tests_once() -> None:
    plan = make_plan(compose_config(["protocol=lra_ours", "run.accelerator=cpu"]))
    assert isinstance(plan.task, ImdbTask)
    assert plan.task.splits == {"train": "train", "test": "test"}
    assert (plan.task.held_out, plan.settings.keep) == (2500, "best")


def test_the_command_line_has_the_last_word() -> None:
    config = compose_config(
        ["scale=small", "model=tiny", "task=rte", "training.learning_rate=7e-5"]
    )
    assert (config.names.model, config.task.name) == ("tiny", "rte")
    assert config.training.learning_rate == 7e-5


def test_every_pattern_has_a_config_and_every_config_a_pattern() -> None:
    """A pattern that no yaml names could be used by nobody."""
    import aaa.patterns

    classes = {
        value.__name__
        for value in vars(aaa.patterns).values()
        if isinstance(value, type) and issubclass(value, Pattern)
    } - {"Pattern", "Union", "InLayers"}  # pattern.layers puts any pattern in some layers
    files = [(config_folder() / "pattern" / f"{name}.yaml") for name in names("pattern")]
    named = {
        target.rsplit(".", 1)[1]
        for path in files
        for target in _targets(OmegaConf.to_container(OmegaConf.load(path)))
    } - {"union"}
    assert named == classes


def _targets(node: Any) -> list[str]:
    if not isinstance(node, dict):
        return []
    own = [node["_target_"]] if "_target_" in node else []
    return own + [target for value in node.values() for target in _targets(value)]
