"""What every run is, whatever it trains: a config, a name made of its content, a directory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, OmegaConf

from aaa.control import SparsityControl
from aaa.experiments.result import with_model
from aaa.experiments.resume import OWNER
from aaa.fingerprint import hash_json
from aaa.models import Start
from aaa.names import known_name
from aaa.numbers import check_bool, is_number
from aaa.patterns import Pattern
from aaa.sparse import check_executor
from aaa.training.settings import TrainingSettings

ID_LENGTH = 12
FOLDERS = ("runs", "pretraining")  # of run.output_dir, where runs lie
MAX_SEED = 2**32 - 1  # NumPy's
COUNTS = ("data.max_length", "run.checkpoint_every", "run.log_every")
WANDB_MODES = ("online", "offline", "disabled")


@dataclass(frozen=True)
class Job(ABC):
    """A run's config turned into objects, all of them cheap: nothing is loaded yet."""

    config: DictConfig
    pattern: Pattern
    encoder: Start
    control: SparsityControl | None
    settings: TrainingSettings
    run_id: str
    cell_id: str  # the run's identity but for its seed: what a table averages over

    folder: ClassVar[str]  # of run.output_dir, where runs of this kind lie
    command: ClassVar[str]

    @property
    @abstractmethod
    def subject(self) -> str:
        """The name of what is trained on."""

    @property
    @abstractmethod
    def headline(self) -> str:
        """The metric that is the run's score."""

    @property
    def directory(self) -> Path:
        """Where everything of the run lies."""
        return Path(self.config.run.output_dir) / self.folder / self.run_id

    @property
    def label(self) -> dict[str, str]:
        """What the run's checkpoints say of whose they are."""
        return {OWNER: self.run_id}

    @property
    def title(self) -> str:
        """How the run is called on a screen."""
        names = self.config.names
        return f"{self.subject} · {names.pattern} · {names.model} · seed {self.config.seed}"


def identity(decides: dict[str, Any]) -> dict[str, str]:
    """A run's id, the hash of all that decides its numbers, and its cell's: all but the seed."""
    cell = {name: value for name, value in decides.items() if name != "seed"}
    return {"run_id": hash_json(decides)[:ID_LENGTH], "cell_id": hash_json(cell)[:ID_LENGTH]}


def check_surroundings(config: DictConfig, settings: TrainingSettings, pattern: Pattern) -> None:
    """Raises a ValueError for values, a logger, devices or an executor that no run can have."""
    _check_finite(OmegaConf.to_container(config, resolve=True))
    _check_values(config)
    known_name(config.logger.get("mode", WANDB_MODES[0]), WANDB_MODES, "logger.mode")
    _check_devices(config, settings)
    _check_executor(config, pattern)


def _check_values(config: DictConfig) -> None:
    """Raises a ValueError for what is of another kind, or out of range: YAML takes anything."""
    if not is_number(config.seed, int) or not 0 <= config.seed <= MAX_SEED:
        raise ValueError(f"seed must be a whole number from 0 to {MAX_SEED}, not {config.seed!r}")
    for key in COUNTS:
        value = OmegaConf.select(config, key)
        if not is_number(value, int) or value < 1:
            raise ValueError(f"{key} must be a whole number of 1 or more, not {value!r}")
    check_bool("run.progress", config.run.progress)


def _check_finite(node: Any, key: str = "") -> None:
    """Raises a ValueError for an infinity or a NaN anywhere: no result.json could hold it."""
    if isinstance(node, float) and not math.isfinite(node):
        raise ValueError(f"{key} must be a finite number, not {node}")
    if isinstance(node, dict):
        for name, value in node.items():
            _check_finite(value, f"{key}.{name}" if key else str(name))
    if isinstance(node, list):
        for place, value in enumerate(node):
            _check_finite(value, f"{key}[{place}]")


def _check_devices(config: DictConfig, settings: TrainingSettings) -> None:
    """Raises a ValueError if what is to compute is not there."""
    accelerator = known_name(config.run.accelerator, ("auto", "cpu", "gpu"), "run.accelerator")
    gpus = torch.cuda.device_count()
    if accelerator == "gpu" and not gpus:
        raise ValueError("run.accelerator=gpu, but this machine has no GPU that torch can use")
    if accelerator != "cpu" and gpus and settings.devices > gpus:
        raise ValueError(f"training.devices={settings.devices}, but this machine has {gpus} GPUs")


def _check_executor(config: DictConfig, pattern: Pattern) -> None:
    """Raises a ValueError for an executor that could not train this pattern on this machine."""
    executor = config.run.executor
    check_executor(executor)
    on_gpu = config.run.accelerator != "cpu" and torch.cuda.is_available()
    if executor == "exportable":
        raise ValueError("run.executor=exportable is for inference: train with run.executor=auto")
    if executor in ("sdpa", "flex") and pattern.learnable:
        raise ValueError(
            f"run.executor={executor} gives no gradient to gates, and {pattern} is learned: "
            "use run.executor=auto"
        )
    if executor in ("flex", "triton") and not on_gpu:
        raise ValueError(
            f"run.executor={executor} trains on GPUs alone, and this run has none: "
            "use run.executor=auto"
        )


def find_runs(config: DictConfig) -> None:
    """Puts the directory of a run in place of its id wherever a config names one.

    Raises:
        ValueError: for an id of digits and an e, which YAML takes for a number of another form.
    """
    config.run.output_dir = str(config.run.output_dir)
    for group, key in (("pattern", "source"), ("model", "path"), ("run", "resume_from")):
        node = config[group]
        if key in node and not OmegaConf.is_missing(node, key) and node[key] is not None:
            if isinstance(node[key], float):
                raise ValueError(
                    f"{group}.{key} is read as the number {node[key]}: quote it twice, "
                    f"\"{group}.{key}='...'\""
                )
            node[key] = _found(config, node[key])
    kind, *matched = str(config.sparsity.target).split(":", 2)
    if kind == "match" and len(matched) == 2:
        config.sparsity.target = f"match:{matched[0]}:{_found(config, matched[1])}"


def _found(config: DictConfig, named: str | int) -> str:
    named = str(named)  # an id may look like a number
    places = [Path(config.run.output_dir) / folder / named for folder in FOLDERS]
    for directory in [Path(named)] if Path(named).exists() else places:
        if directory.is_dir():
            return str(with_model(directory))
    return named
