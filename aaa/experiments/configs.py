"""From overrides to a config, from a config to objects, and what is said of errors in either."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException, MissingConfigException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from aaa.experiments.kinds import check_kinds
from aaa.names import known_names
from aaa.places import config_folder, first_line, pretraining_config_folder

# Keys that are there for Hydra's sake.
NOT_OF_USERS = ("hydra", "_target_")


def config_source(name: str) -> tuple[Path, Path | None]:
    """The folder of a command's config, and the one beneath it in Hydra's search path."""
    if name == "pretrain":
        return pretraining_config_folder(), config_folder()
    return config_folder(), None


def explain(error: Exception, command: str, arguments: Sequence[str] = ()) -> str:
    """What an error of Hydra's says; of an unknown name, with the names that are known.

    Args:
        arguments: the overrides. With a table they are read before the table's own choices are.
    """
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group} {name!r} is unknown{known_names(name, error.options)}"
    cause = error.__cause__
    lines = [str(error).strip()]
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and cause.parent_node:
        key, accepted = str(cause.full_key), _arguments(cause.parent_node) or []
        group, _, name = key.rpartition(".")
        if name in accepted:
            return f"{key} is not in this config: add it as +{key}="
        groups = [] if group else _declared(command)[0]  # of some the choices are no keys
        known = dict.fromkeys([*cause.parent_node, *accepted, *groups])
        said = _unknown(group, name, known, cause.parent_node._get_root())
        if group and any("sweeper.table=" in argument for argument in arguments):
            said += f"; for what the table's own choices have, write it as +{key}="
        return said
    if cause is not None and str(cause).strip() not in lines[0]:
        lines.append(str(cause).strip())
    return "\n".join(lines)


def _unknown(group: str, name: str, known: Iterable[Any], config: DictConfig | None = None) -> str:
    """What is said of a name that is none of those ``known``.

    Args:
        config: as a whole, to tell which groups have such a key where this one has none.
    """
    ending = known_names(name, [str(key) for key in known if key not in NOT_OF_USERS])
    nodes = {} if config is None else {str(key): config._get_node(key) for key in config}
    elsewhere = [
        f"{key}.{name}"
        for key, node in nodes.items()
        if isinstance(node, DictConfig)
        and key not in (group, *NOT_OF_USERS)
        and name in list(node)
    ]
    if elsewhere:
        ending = f", did you mean {' or '.join(elsewhere)}?"
    return f"{group}{'.' * bool(group)}{name} is unknown{ending}"


def check_keys(config: DictConfig, command: str) -> None:
    """Checks the keys that no class takes as its arguments: Hydra lets ``+key=value`` add any.

    Raises:
        ValueError: for one that the command's own file does not have, with those that it has.
    """
    groups, own = _declared(command)
    nodes: list[tuple[str, DictConfig, list[str]]] = [("", config, [*own, *groups])]
    nodes += [(group, config[group], keys) for group, keys in own.items() if keys]
    for group, node, known in nodes:
        for name in map(str, node):
            if name not in known and name not in NOT_OF_USERS:
                raise ValueError(_unknown(group, name, known, config))
    _check_arguments(config.logger, "logger")


def check_unread(config: DictConfig, command: str, keys: Iterable[str], why: str) -> None:
    """Checks keys that the chosen task, corpus or model has no use for: they would do nothing.

    Raises:
        ValueError: for one that is not as the command's own file has it, with ``why``.
    """
    for key in keys:
        value = OmegaConf.select(config, key)
        if value != OmegaConf.select(_own_file(command), key):
            raise ValueError(f"{key}={value} would do nothing: {why}")


def check_length(config: DictConfig) -> None:
    """Raises a ValueError for epochs that are asked for beside a number of steps, which counts."""
    epochs, steps = config.training.max_epochs, config.training.max_steps
    if is_given("training.max_epochs") and epochs is not None and steps is not None:
        raise ValueError(
            f"training.max_epochs={epochs} would do nothing beside training.max_steps={steps}: "
            "add training.max_steps=null"
        )


def is_given(key: str) -> bool:
    """Whether a key stands on the command line; a scale or model may have its own value for it.

    Never in a worker, which has a config that was checked, and no command line.
    """
    return key in _given()


def check_not_given(group: str, read: Iterable[str], why: str) -> None:
    """Checks that no key of a group stands on the command line but those that are ``read``.

    Raises:
        ValueError: for one that would do nothing, with ``why``.
    """
    for key in _given():
        own, _, name = key.partition(".")
        if own == group and name and name not in read:
            raise ValueError(f"{key} would do nothing: {why}")


def _given() -> list[str]:
    if not HydraConfig.initialized():
        return []
    return [key.lstrip("+").partition("=")[0] for key in HydraConfig.get().overrides.task]


@functools.cache
def _own_file(command: str) -> DictConfig:
    file = OmegaConf.load(config_source(command)[0] / f"{command}.yaml")
    assert isinstance(file, DictConfig)
    return file


@functools.cache
def _declared(command: str) -> tuple[list[str], dict[str, list[str]]]:
    """Of a command's own file: its groups, and its other keys with the keys below each."""
    file = _own_file(command)
    choices = (entry for entry in file.defaults if OmegaConf.is_dict(entry))
    groups = [str(group) for entry in choices for group in entry if "/" not in str(group)]
    nodes = {str(key): node for key, node in file.items() if key not in ("hydra", "defaults")}
    return groups, {
        key: [str(name) for name in node] if OmegaConf.is_dict(node) else []
        for key, node in nodes.items()
        if key not in groups
    }


def build(node: DictConfig, group: str, kind: type) -> Any:
    """Instantiates one group of the config.

    Raises:
        ValueError: what the group's classes say of their arguments, or that one takes no such
            argument, with those that it takes.
    """
    try:
        built = instantiate(node)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ValueError(str(cause)) from error
        if isinstance(cause, TypeError | AttributeError):
            _check_arguments(node, group)
            _check_kinds(node, group)
        raise ValueError(f"{group}: {first_line(cause or error)}") from error
    _check_kinds(node, group)
    if not isinstance(built, kind):
        raise ValueError(f"{group} must be a {kind.__name__}, but its _target_ makes {built!r}")
    return built


def _check_arguments(node: DictConfig, group: str) -> None:
    """Raises a ValueError for an argument that a class of this group, or within it, lacks."""
    for name in map(str, node):
        if OmegaConf.is_dict(OmegaConf.select(node, name)):
            _check_arguments(node[name], f"{group}.{name}")
    known = _arguments(node)
    for name in map(str, node):
        if known is not None and name not in known and name not in NOT_OF_USERS:
            raise ValueError(_unknown(group, name, known))


def _check_kinds(node: DictConfig, group: str) -> None:
    if "_target_" in node:
        check_kinds(node, get_method(node["_target_"]), group)


def _arguments(node: Any) -> list[str] | None:
    """What the class of a node takes; None if it has none, or one that takes anything."""
    if "_target_" not in node:
        return None
    parameters = inspect.signature(get_method(node["_target_"])).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if anything else list(parameters)


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
