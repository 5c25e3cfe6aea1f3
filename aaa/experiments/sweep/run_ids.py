"""The names of many runs, without composing and hashing again what has not changed.

To name a run takes a tenth of a second: its config is composed, its objects are made, its data
and weights hashed. ``outputs/cache/run_ids.json`` keeps the names for as long as neither code
nor configs nor any file that was hashed have changed; so a sweep with nothing to do knows in
seconds, without torch.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from aaa.experiments.configs import build, explain
from aaa.experiments.result import write_json
from aaa.experiments.sweep.estimate import Load, load_of
from aaa.fingerprint import files_hashed, hash_json, stamp
from aaa.places import config_folder

FILE = "run_ids.json"
# Overrides that decide nothing about a run's numbers.
ELSEWHERE = ("run.", "logger=", "logger.")
# What is read there is hashed by other means.
UNKEPT = ("pattern.source=", "sparsity.target=match:")

Compose = Callable[[Sequence[str]], DictConfig]


@dataclass(frozen=True)
class Named(Load):
    """A run's name, and what its cost is estimated from."""

    run_id: str = field(kw_only=True)


class RunIds:
    """Names runs by their overrides.

    Args:
        path: where the names are kept.
        compose: makes the config of a job's overrides, Hydra's own part included.
    """

    def __init__(self, path: Path, compose: Compose) -> None:
        self.path, self.compose = path, compose
        self._code = _code_stamp()
        self._kept = self._read()
        self._new: dict[str, Any] = {}
        self._composed: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}

    def find(self, overrides: Sequence[str]) -> Named:
        """The run that ``aaa finetune <overrides>`` does.

        Raises:
            ValueError: if their config cannot be run.
        """
        deciding = [o for o in overrides if not o.lstrip("+").startswith(ELSEWHERE)]
        key = hash_json([*deciding, str(Path.cwd()), *_places(deciding)])
        kept = self._kept.get(key)
        if kept is not None and all(_is_unchanged(*file) for file in kept["files"]):
            return Named(**kept["named"])
        with files_hashed() as files:
            named = self._name(overrides)
        if not any(_is_copy(override) for override in deciding):
            watched = sorted(files | {file.parent for file in files})
            self._new[key] = {
                "named": asdict(named),
                "files": [[str(path), *stamp(path)] for path in watched],
            }
        return named

    def save(self) -> None:
        """Keeps what was found."""
        if not self._new:
            return
        with contextlib.suppress(OSError):  # a folder that is only read: named anew each time
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")):
                write_json(self.path, {"code": self._code, "runs": self._read() | self._new})
        self._kept |= self._new
        self._new = {}

    def load(self, overrides: Sequence[str]) -> Load:
        """What a run will have to do that cannot be named before another is done.

        Raises:
            ValueError: if there is no such config.
        """
        from aaa.training.settings import TrainingSettings  # imports torch

        config = self._config(overrides)
        return Load(**load_of(config, build(config.training, "training", TrainingSettings)))

    def _name(self, overrides: Sequence[str]) -> Named:
        from aaa.experiments.plan import make_plan  # imports torch

        plan = make_plan(self._config(overrides))
        return Named(run_id=plan.run_id, **load_of(plan.config, plan.settings))

    def _config(self, overrides: Sequence[str]) -> DictConfig:
        """The config without Hydra's part; runs that differ in their seed share the composing."""
        seeds = [override for override in overrides if override.startswith("seed=")]
        rest = tuple(override for override in overrides if not override.startswith("seed="))
        if rest not in self._composed:
            try:
                composed = self.compose([*rest, *seeds[-1:]])
            except (HydraException, OmegaConfBaseException) as error:
                raise ValueError(explain(error, "finetune")) from error
            around = OmegaConf.masked_copy(composed, "hydra")
            with open_dict(composed):
                del composed["hydra"]
            self._composed[rest] = around, composed
        around, composed = self._composed[rest]
        HydraConfig.instance().set_config(around)  # names of choices are read from there
        config = composed.copy()
        if seeds:
            OmegaConf.update(config, "seed", _number(seeds[-1].removeprefix("seed=")))
        return config

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            kept = json.loads(self.path.read_text())
            if kept["code"] == self._code:
                return dict(kept["runs"])
        return {}


def _places(overrides: Sequence[str]) -> list[str]:
    """Where what overrides name really lies: a link may come to lead elsewhere."""
    named = [override.partition("=")[2].strip("'\"") for override in overrides]
    paths = [text for value in named for text in (value, value.partition(":")[2]) if text]
    return [str(Path(text).resolve()) for text in paths if os.path.lexists(text)]


def _is_copy(override: str) -> bool:
    override = override.replace("'", "").replace("\\", "")  # as a user or Hydra quotes it
    return override.startswith(UNKEPT[0]) or (
        override.startswith(UNKEPT[1]) and ":" in override.removeprefix(UNKEPT[1])
    )


def _number(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text  # a wrong one is told later


def _is_unchanged(path: str, size: int, modified: int) -> bool:
    try:
        return stamp(Path(path)) == (size, modified)
    except OSError:
        return False


def _code_stamp() -> str:
    """Changes with any file of the package or of the configs."""
    package = Path(__file__).resolve().parents[2]
    files = sorted([*package.rglob("*.py"), *config_folder().rglob("*.yaml")])
    return hash_json([[str(path), *stamp(path)] for path in files])
