"""Pre-training runs by what they are: where ``aaa pretrain`` of some overrides leaves its work."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from aaa.experiments.configs import compose_config, explain
from aaa.experiments.pretraining import make_pretraining_plan
from aaa.experiments.result import MODEL, is_finished, read_result
from aaa.experiments.sweep.estimate import Load, load_of


@dataclass(frozen=True)
class PretrainingRun:
    """A pre-training run, done or not.

    Args:
        directory: where it lies or will lie.
        model_folder: what ``model.path=`` takes; None until the run is finished.
        command: what does it.
        load: what it has to do.
    """

    directory: Path
    model_folder: Path | None
    command: str
    load: Load


def find_pretraining(overrides: Sequence[str]) -> PretrainingRun:
    """The run of ``aaa pretrain <overrides>``. Files are hashed, but nothing is loaded.

    Raises:
        ValueError: for overrides that make no run.
    """
    with _beside_hydra():
        try:
            config = compose_config(overrides, "pretrain")
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, "pretrain")) from error
        plan = make_pretraining_plan(config)
        load = Load(**load_of(config, plan.settings), tokens=config.data.max_length)
    finished = is_finished(read_result(plan.directory))
    return PretrainingRun(
        directory=plan.directory,
        model_folder=plan.directory / MODEL if finished else None,
        command=shlex.join(["aaa", "pretrain", *overrides]),
        load=load,
    )


@contextmanager
def _beside_hydra() -> Iterator[None]:
    """Leaves alone the Hydra of the command that asks, which may be amid its sweep."""
    config, hydra = HydraConfig.instance().cfg, GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        yield
    finally:  # meanwhile the instances may have become others
        HydraConfig.instance().cfg = config
        GlobalHydra.instance().hydra = hydra
