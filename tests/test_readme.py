"""README's Python runs as it stands, and its commands compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from aaa.experiments.configs import compose_config

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
    if line.startswith("aaa finetune")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command: str) -> None:
    arguments = shlex.split(command, comments=True)[2:]
    overrides = [argument.split(",")[0] for argument in arguments if argument != "-m"]
    assert compose_config(overrides).task.name in {"stsb", "cola", "imdb"}


def test_overrides_in_the_text_compose() -> None:
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    spans = " ".join(re.findall(r"`([^`]*)`", prose)).split()
    overrides = [word for word in spans if re.fullmatch(r"[\w.]+=[\w.-]+", word)]
    assert len(overrides) > 5
    compose_config(["scale=small", *(word for word in overrides if "logger" not in word)])
