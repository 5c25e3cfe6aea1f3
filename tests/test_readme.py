"""README's Python runs as it stands, and its commands compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aaa.experiments.configs import compose_config
from aaa.experiments.tables.spec import load_table

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_blocks_run_one_after_the_other() -> None:
    namespace: dict[str, object] = {}
    for block in blocks("python"):
        exec(block, namespace)
    assert "SparseTrainer" in namespace


COMMANDS = [
    line
    for block in blocks("bash")
    for line in block.splitlines()
    if line.startswith(("aaa finetune", "aaa pretrain"))
]
TABLES = [command for command in COMMANDS if "+table=" in command]


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(TABLES)))
def test_commands_compose(command: str) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    overrides = [argument.split(",")[0] for argument in arguments if argument != "-m"]
    config = compose_config(overrides, name)
    assert OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("command", TABLES)
def test_tables_have_such_cells(command: str) -> None:
    given = dict(word.lstrip("+").split("=", 1) for word in command.split() if "=" in word)
    assert load_table(given["table"], given["scale"]).cells(columns=[given["columns"]])


def test_overrides_in_the_text_compose() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    spans = " ".join(re.findall(r"`([^`]*)`", prose)).split()
    overrides = [word for word in spans if re.fullmatch(r"[a-z][\w.]*=[\w.-]+", word)]
    assert len(overrides) > 5
    compose_config(["scale=small", *(word for word in overrides if "logger" not in word)])
