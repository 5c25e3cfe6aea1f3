"""The shipped configs: where they lie, and composing one without the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict


def config_folder() -> Path:
    """conf/: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def compose_config(overrides: Sequence[str], name: str = "finetune") -> DictConfig:
    """The config of ``aaa <name> <overrides>``, for scripts and tests."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(name, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # names of choices are read from there
    with open_dict(config):
        del config.hydra
    return config
