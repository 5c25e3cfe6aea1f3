"""What a run is to do, read from its config and checked before any work starts."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from aaa.control import SparsityControl
from aaa.data.parses import Parses, open_parses
from aaa.data.task import Task
from aaa.fingerprint import hash_json
from aaa.models import Encoder
from aaa.patterns import InLayers, Pattern
from aaa.places import config_folder, first_line
from aaa.training.settings import TrainingSettings

ID_LENGTH = 12
IN_LAYERS = ("layers", "elsewhere")  # keys that any pattern's config may have


@dataclass(frozen=True)
class Plan:
    """A run's config turned into objects, all of them cheap: nothing is loaded yet."""

    config: DictConfig
    task: Task
    pattern: Pattern
    encoder: Encoder
    control: SparsityControl | None
    settings: TrainingSettings
    parses: Parses | None  # of the texts, where the pattern reads them
    run_id: str
    cell_id: str  # the run's identity but for its seed: what a table averages over

    @property
    def directory(self) -> Path:
        """Where everything of the run lies."""
        return Path(self.config.run.output_dir) / "runs" / self.run_id

    @property
    def title(self) -> str:
        """How the run is called on a screen."""
        names = self.config.names
        return f"{self.task.name} · {names.pattern} · {names.model} · seed {self.config.seed}"


def make_plan(config: DictConfig) -> Plan:
    """Instantiates everything that a config names.

    Raises:
        ValueError: naming what is wrong in the config, and what would be right.
    """
    _find_sources(config)
    pattern = build_pattern(config.pattern)
    settings = _build(config.training, "training", TrainingSettings)
    control = _build(config.sparsity, "sparsity", SparsityControl)
    task = _build(config.task, "task", Task)
    parses = _open_parses(config, pattern)
    encoder = _build(config.model, "model", Encoder)
    _check_devices(config, settings)
    if not isinstance(config.seed, int) or config.seed < 0:
        raise ValueError(f"seed must be a whole number of 0 or more, not {config.seed!r}")
    if control.matched_pattern is not None and pattern.learnable:
        matched_pattern(control)
    return Plan(
        config=config,
        task=task,
        pattern=pattern,
        encoder=encoder,
        control=control if pattern.learnable else None,
        settings=settings,
        parses=parses,
        **_identity(config, task, encoder, pattern, control, parses),
    )


def _open_parses(config: DictConfig, pattern: Pattern) -> Parses | None:
    if "heads" not in pattern.wants:
        return None
    if config.data.parses is None:
        raise ValueError(
            f"{pattern} reads dependency parses: give data.parses=spacy:<model> or "
            "data.parses=conllu:<file or folder>"
        )
    return open_parses(config.data.parses)


def _identity(
    config: DictConfig,
    task: Task,
    encoder: Encoder,
    pattern: Pattern,
    control: SparsityControl,
    parses: Parses | None,
) -> dict[str, str]:
    decides = science(config, task, encoder, pattern)
    if pattern.learnable and control.matched_source is not None:  # what was read, not where
        decides["sparsity"] = decides["sparsity"] | {
            "target": f"match:{control.matched_pattern}",
            "matched": matched_pattern(control).fingerprint(),
        }
    if parses is not None:
        decides["parses"] = parses.fingerprint()
    cell = {name: value for name, value in decides.items() if name != "seed"}
    return {"run_id": hash_json(decides)[:ID_LENGTH], "cell_id": hash_json(cell)[:ID_LENGTH]}


def science(config: DictConfig, task: Task, encoder: Encoder, pattern: Pattern) -> dict[str, Any]:
    """The part of a config that decides a run's numbers; its hash names the run.

    Paths, loggers and devices' kinds are not in it: data and weights enter by their content. Nor
    is what a pattern without gates does not read: the objective and the gates' rate.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    place = ("path", "revision")
    decides = {
        "seed": plain["seed"],
        "max_length": plain["data"]["max_length"],
        "pattern": _rule(plain["pattern"], pattern),
        "training": _without_defaults(plain["training"]),
        "task": {key: value for key, value in plain["task"].items() if key not in place},
        "data": task.fingerprint(),
        "model": {key: value for key, value in plain["model"].items() if key not in place},
        "weights": encoder.fingerprint(),
    }
    if pattern.learnable:
        decides["sparsity"] = plain["sparsity"]
    else:
        del decides["training"]["gate_learning_rate"]
    return decides


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


def _find_sources(config: DictConfig) -> None:
    """Puts the directory of a run in place of its id, where a pattern is copied from one."""
    node = config.pattern
    if "source" in node:
        node.source = _found(config, node.source)
    kind, *matched = str(config.sparsity.target).split(":", 2)
    if kind == "match" and len(matched) == 2:
        config.sparsity.target = f"match:{matched[0]}:{_found(config, matched[1])}"


def _found(config: DictConfig, source: str) -> str:
    directory = Path(config.run.output_dir) / "runs" / source
    return source if Path(source).exists() or not directory.is_dir() else str(directory)


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
    pattern = _build(rule, "pattern", Pattern)
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
    folder = config_folder() / "pattern"
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ValueError(f"{key}: unknown pattern {name!r}; known: {known}")
    node = OmegaConf.load(file)
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


def _build(node: DictConfig, group: str, kind: type) -> Any:
    """Instantiates one group of the config; its errors name the group."""
    try:
        built = instantiate(node)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ValueError(str(cause)) from error
        raise ValueError(f"{group}: {first_line(cause or error)}") from error
    if not isinstance(built, kind):
        raise ValueError(f"{group} must be a {kind.__name__}, but its _target_ makes {built!r}")
    return built


def _check_devices(config: DictConfig, settings: TrainingSettings) -> None:
    known = ("auto", "cpu", "gpu")
    accelerator = config.run.accelerator
    if accelerator not in known:
        raise ValueError(f"run.accelerator must be one of {', '.join(known)}, not {accelerator!r}")
    gpus = torch.cuda.device_count()
    if accelerator == "gpu" and not gpus:
        raise ValueError("run.accelerator=gpu, but this machine has no GPU that torch can use")
    if accelerator != "cpu" and gpus and settings.devices > gpus:
        raise ValueError(f"training.devices={settings.devices}, but this machine has {gpus} GPUs")
