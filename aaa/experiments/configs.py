"""Composing a shipped config without the command line, and what its errors say."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from aaa.places import config_folder


def explain(error: Exception) -> str:
    """What an error of Hydra's says, with what lies behind it if that says more."""
    cause = error.__cause__
    lines = [str(error).strip()]
    if cause is not None and str(cause).strip() not in lines[0]:
        lines.append(str(cause).strip())
    return "\n".join(lines)


def compose_config(overrides: Sequence[str], name: str = "finetune") -> DictConfig:
    """The config of ``aaa <name> <overrides>``, for scripts and tests."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(name, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # names of choices are read from there
    with open_dict(config):
        del config.hydra
    return config
