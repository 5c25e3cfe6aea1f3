"""Imports point one way, from experiments down to masks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each room, and the rooms below it that it may name.
MAY_IMPORT = {
    "places": set(),
    "fingerprint": set(),
    "names": set(),
    "numbers": set(),
    "masks": set(),
    "patterns": {"masks", "names", "numbers"},
    "attention": {"masks"},
    "interface": set(),
    "probe": {"interface"},
    "text_input": {"patterns", "probe"},
    "record": {"fingerprint", "numbers", "patterns"},
    "sparse": {
        "masks", "patterns", "attention", "probe", "interface", "names", "text_input", "record",
    },
    "lra_model": set(),
    "saved": {"lra_model", "patterns", "places", "record", "sparse"},
    "objective": {"masks", "numbers", "patterns", "sparse"},
    "control": {"names", "numbers", "patterns", "objective"},
    "mask_statistics": {"masks"},
    "data": {"fingerprint", "names", "places"},
    "models": {"fingerprint", "numbers", "lra_model", "places", "data", "record", "saved"},
    "training": {"masks", "numbers", "sparse", "objective", "control", "mask_statistics", "data"},
    "experiments": {
        "sparse", "objective", "control", "patterns", "training", "data", "models",
        "fingerprint", "names", "numbers", "places", "saved",
    },
    "plots": {
        "masks", "patterns", "sparse", "saved", "training", "experiments", "fingerprint", "models",
    },
    "report": {"names", "training", "experiments", "plots"},
    "tracking": {"training", "plots"},
    "deploy": {"sparse", "saved", "experiments", "models"},
    "cli": {"experiments", "names", "places", "plots", "report", "deploy"},
    "__main__": {"cli"},
    "__init__": {"masks", "patterns", "sparse", "objective", "saved"},
}  # fmt: skip


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "aaa").parts
    return parts[0] if len(parts) > 1 else path.stem


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = (
                [node.module] if node.module != "aaa" else [f"aaa.{n.name}" for n in node.names]
            )
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in modules if name.startswith("aaa.")}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "aaa").rglob("*.py")), ids=lambda p: p.stem)
def test_imports_point_down(path: Path) -> None:
    assert imported_rooms(path) - {room(path)} <= MAY_IMPORT[room(path)]


def test_the_library_alone_is_light() -> None:
    code = (
        "import sys, aaa; aaa.sparsify; "
        "heavy = {'pytorch_lightning', 'hydra', 'datasets', 'wandb', 'matplotlib'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pickle_and_no_remote_code() -> None:
    for path in (ROOT / "aaa").rglob("*.py"):
        text = path.read_text()
        assert "trust_remote_code" not in text, path
        assert "weights_only=False" not in text, path
        assert "import pickle" not in text, path
