"""Composing a shipped config without the command line, and what its errors say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from aaa.places import config_folder, pretraining_config_folder


def config_source(name: str) -> tuple[Path, Path | None]:
    """The folder of a command's config, and the one beneath it in Hydra's search path."""
    if name == "pretrain":
        return pretraining_config_folder(), config_folder()
    return config_folder(), None


def explain(error: Exception) -> str:
    """What an error of Hydra's says, with what lies behind it if that says more."""
    cause = error.__cause__
    lines = [str(error).strip()]
    if cause is not None and str(cause).strip() not in lines[0]:
        lines.append(str(cause).strip())
    return "\n".join(lines)


def compose_config(overrides: Sequence[str], name: str = "finetune") -> DictConfig:
    """The config of ``aaa <name> <overrides>``, for scripts and tests."""
    folder, beneath = config_source(name)
    path = [] if beneath is None else [f"hydra.searchpath=['file://{beneath}']"]
    with initialize_config_dir(str(folder), version_base="1.3"):
        config = compose(name, [*overrides, *path], return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # names of choices are read from there
    with open_dict(config):
        del config.hydra
    return config
