"""Composing a shipped config without the command line."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from aaa.places import config_folder


def compose_config(overrides: Sequence[str], name: str = "finetune") -> DictConfig:
    """The config of ``aaa <name> <overrides>``, for scripts and tests."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(name, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # names of choices are read from there
    with open_dict(config):
        del config.hydra
    return config
