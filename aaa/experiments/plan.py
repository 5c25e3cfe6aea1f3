"""What a run is to do, read from its config and checked before any work starts."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aaa.control import SparsityControl
from aaa.data.parses import Parses, open_parses
from aaa.data.task import Task
from aaa.experiments.configs import build, check_keys, check_length, check_unread
from aaa.experiments.job import Job, check_surroundings, find_runs, identity
from aaa.models import Encoder
from aaa.names import known_name
from aaa.patterns import InLayers, Pattern
from aaa.places import config_folder, config_names
from aaa.training.settings import TrainingSettings

IN_LAYERS = ("layers", "elsewhere")  # keys that any pattern's config may have
SOURCE = ("path", "config", "revision")  # keys of ``data`` that a task or corpus may read


@dataclass(frozen=True)
class Plan(Job):
    """A fine-tuning run: an encoder under a pattern on a task."""

    encoder: Encoder
    task: Task
    parses: Parses | None  # of the texts, where the pattern reads them

    folder = "runs"
    command = "finetune"

    @property
    def subject(self) -> str:
        """The task."""
        return self.task.name

    @property
    def headline(self) -> str:
        """The task's metric."""
        return self.task.headline


def make_plan(config: DictConfig) -> Plan:
    """Instantiates everything that a config names.

    Raises:
        ValueError: naming what is wrong in the config, and what would be right.
    """
    check_keys(config, "finetune")
    find_runs(config)
    pattern = build_pattern(config.pattern)
    settings = build(config.training, "training", TrainingSettings)
    check_length(config)
    control = build(config.sparsity, "sparsity", SparsityControl)
    task = build(config.task, "task", Task)
    check_source(config, "finetune", "task", "choose task=cola or another that reads it")
    parses = _open_parses(config, pattern)
    encoder = build(config.model, "model", Encoder)
    check_surroundings(config, settings, pattern)
    decides = science(config, task, encoder, pattern, control, parses)
    return Plan(
        config=config,
        task=task,
        pattern=pattern,
        encoder=encoder,
        control=control if pattern.learnable else None,
        settings=settings,
        parses=parses,
        **identity(decides),
    )


def check_source(config: DictConfig, command: str, group: str, remedy: str) -> None:
    """Checks that what is given of where the data lie is read by the task or corpus.

    Raises:
        ValueError: if it generates its data, which would be trained on without a word.
    """
    unread = [f"data.{key}" for key in SOURCE if key in config.data and key not in config[group]]
    who = f"{group}={config.names.task} makes its own data"
    check_unread(config, command, unread, f"{who}; {remedy}")


def _open_parses(config: DictConfig, pattern: Pattern) -> Parses | None:
    if "heads" not in pattern.wants:
        return None
    if config.data.parses is None:
        raise ValueError(
            f"{pattern} reads dependency parses: give data.parses=spacy:<model> or "
            "data.parses=conllu:<file or folder>"
        )
    return open_parses(config.data.parses)


def science(
    config: DictConfig,
    task: Task,
    encoder: Encoder,
    pattern: Pattern,
    control: SparsityControl,
    parses: Parses | None = None,
) -> dict[str, Any]:
    """The part of a config that decides a run's numbers; its hash names the run.

    Paths, loggers and devices' kinds are not in it: data and weights enter by their content.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    decides = method(plain, pattern, control) | {
        "task": without_places(plain["task"]),
        "data": task.fingerprint(),
        "model": without_places(plain["model"]),
        "weights": encoder.fingerprint(),
    }
    return decides | ({} if parses is None else {"parses": parses.fingerprint()})


def method(plain: dict[str, Any], pattern: Pattern, control: SparsityControl) -> dict[str, Any]:
    """What of any run's config says how it trains, without what a pattern has no use for.

    A pattern without gates does not read the objective and the gates' rate.
    """
    decides = {
        "seed": plain["seed"],
        "max_length": plain["data"]["max_length"],
        "pattern": _rule(plain["pattern"], pattern),
        "training": _without_defaults(plain["training"]),
    }
    if pattern.learnable:
        decides["sparsity"] = plain["sparsity"] | _read_for_target(control)
    else:
        del decides["training"]["gate_learning_rate"]
    return decides


def _read_for_target(control: SparsityControl) -> dict[str, Any]:
    """A target that is matched to copied diagonals: what was read, not where.

    Raises:
        ValueError: for a target that cannot be matched.
    """
    if control.matched_pattern is None:
        return {}
    read = matched_pattern(control).fingerprint()
    if control.matched_source is None:
        return {}
    return {"target": f"match:{control.matched_pattern}", "matched": read}


def without_places(node: dict[str, Any]) -> dict[str, Any]:
    """A group of a config without where its files lie, and without the options it leaves alone."""
    return {
        key: value
        for key, value in node.items()
        if key not in ("path", "revision") and value is not None
    }


def _without_defaults(training: dict[str, Any]) -> dict[str, Any]:
    """The settings but those that came later and are at their default (see TrainingSettings)."""
    defaults = {field.name: field.default for field in fields(TrainingSettings)}
    return {
        key: value
        for key, value in training.items()
        if (tuple(value) if isinstance(value, list) else value) != defaults.get(key, MISSING)
    }


def _rule(node: dict[str, Any], pattern: Pattern) -> dict[str, Any]:
    """A pattern's config by content: no key that is not used, no place, what was read there."""
    rule = {key: value for key, value in node.items() if key not in IN_LAYERS or value is not None}
    if "elsewhere" in rule:
        rule["elsewhere"] = OmegaConf.to_container(
            named_pattern(rule["elsewhere"], "pattern.elsewhere"), resolve=False
        )
    read = pattern.fingerprint()
    return rule if read is None else _without_sources(rule) | {"read": read}


def _without_sources(node: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_sources(value) if isinstance(value, dict) else value
        for key, value in node.items()
        if key != "source"
    }


def build_pattern(node: DictConfig) -> Pattern:
    """The pattern of a config's ``pattern`` node.

    Every such node may have ``layers``, the layers in which the pattern is to be (see
    ``InLayers``), and ``elsewhere``, the name of the pattern of all others (full attention
    without).

    Raises:
        ValueError: naming what is wrong.
    """
    layers, elsewhere = (node.get(key) for key in IN_LAYERS)
    rule = OmegaConf.masked_copy(node, [str(key) for key in node if key not in IN_LAYERS])
    if OmegaConf.is_missing(rule, "source"):
        raise ValueError(
            "pattern.source is missing: give the run whose diagonals are to be copied, its id or "
            "its directory, or the folder of a saved model"
        )
    pattern = build(rule, "pattern", Pattern)
    if layers is None:
        if elsewhere is not None:
            raise ValueError("pattern.elsewhere is for layers outside pattern.layers: give those")
        return pattern
    other = None
    if elsewhere is not None:
        other = build_pattern(named_pattern(elsewhere, "pattern.elsewhere"))
    return InLayers(pattern, list(layers) if OmegaConf.is_list(layers) else layers, other)


def named_pattern(name: str, key: str) -> DictConfig:
    """The config of a pattern of conf/pattern.

    Raises:
        ValueError: if there is none of that name, which stood under ``key``.
    """
    known = known_name(name, config_names("pattern"), f"{key}: pattern")
    node = OmegaConf.load(config_folder() / "pattern" / f"{known}.yaml")
    assert isinstance(node, DictConfig)
    return node


def matched_pattern(control: SparsityControl) -> Pattern:
    """The fixed pattern that ``sparsity.target=match:<name>[:<source>]`` names.

    Raises:
        ValueError: for an unknown or a learnable one, or a source that it does not have or lacks.
    """
    assert control.matched_pattern is not None
    node = named_pattern(control.matched_pattern, "sparsity.target")
    is_copied = OmegaConf.is_missing(node, "source")
    if control.matched_source is not None:
        if not is_copied:
            raise ValueError(
                f"sparsity.target={control.target}: {control.matched_pattern} is not copied from "
                "anything; leave out what stands behind its name"
            )
        node.source = control.matched_source
    elif is_copied:
        raise ValueError(
            f"sparsity.target={control.target}: add the run or folder that it is copied from, "
            f"match:{control.matched_pattern}:<source>"
        )
    pattern = build_pattern(node)
    if pattern.learnable:
        raise ValueError(
            f"sparsity.target=match:{control.matched_pattern}: the sparsity of {pattern} is "
            "itself learned; match a fixed pattern such as local2_global2"
        )
    return pattern
