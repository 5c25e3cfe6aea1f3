"""What a run is to do, read from its config and checked before any work starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from aaa.data.task import Task
from aaa.experiments.configs import config_folder
from aaa.fingerprint import hash_json
from aaa.models import Encoder
from aaa.objective import Hinge
from aaa.patterns import Pattern
from aaa.places import first_line
from aaa.training.settings import TrainingSettings

ID_LENGTH = 12


@dataclass(frozen=True)
class Plan:
    """A run's config turned into objects, all of them cheap: nothing is loaded yet."""

    config: DictConfig
    task: Task
    pattern: Pattern
    encoder: Encoder
    hinge: Hinge | None
    settings: TrainingSettings
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
    pattern = _build(config, "pattern", Pattern)
    settings = _build(config, "training", TrainingSettings)
    hinge = _build(config, "sparsity", Hinge)
    task = _build(config, "task", Task)
    encoder = _build(config, "model", Encoder)
    _check_devices(config, settings)
    if not isinstance(config.seed, int) or config.seed < 0:
        raise ValueError(f"seed must be a whole number of 0 or more, not {config.seed!r}")
    if hinge.matched_pattern is not None and pattern.learnable:
        matched_pattern(hinge)
    return Plan(
        config=config,
        task=task,
        pattern=pattern,
        encoder=encoder,
        hinge=hinge if pattern.learnable else None,
        settings=settings,
        **_identity(config, task, encoder, pattern),
    )


def _identity(
    config: DictConfig, task: Task, encoder: Encoder, pattern: Pattern
) -> dict[str, str]:
    decides = science(config, task, encoder, pattern)
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
        "pattern": plain["pattern"],
        "training": plain["training"],
        "task": {key: value for key, value in plain["task"].items() if key not in place},
        "data": task.fingerprint(),
        "model": {key: value for key, value in plain["model"].items() if key not in place},
        "weights": encoder.fingerprint(),
    }
    if pattern.learnable:
        decides["sparsity"] = plain["sparsity"]
    else:
        decides["training"] = {
            key: value for key, value in plain["training"].items() if key != "gate_learning_rate"
        }
    return decides


def matched_pattern(hinge: Hinge) -> Pattern:
    """The fixed pattern that ``sparsity.target=match:<name>`` names.

    Raises:
        ValueError: for an unknown or a learnable one.
    """
    assert hinge.matched_pattern is not None
    folder = config_folder() / "pattern"
    file = folder / f"{hinge.matched_pattern}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ValueError(
            f"sparsity.target: unknown pattern {hinge.matched_pattern!r}; known: {known}"
        )
    pattern = instantiate(OmegaConf.load(file))
    if pattern.learnable:
        raise ValueError(
            f"sparsity.target=match:{hinge.matched_pattern}: the sparsity of {pattern} is itself "
            "learned; match a fixed pattern such as local2_global2"
        )
    return pattern


def _build(config: DictConfig, group: str, kind: type) -> Any:
    """Instantiates one group of the config; its errors name the group."""
    try:
        built = instantiate(config[group])
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
