"""What W&B wrote while it was offline, read back by W&B's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class WrittenRun:
    """One ``offline-run-*`` folder.

    Args:
        folder: it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.records = [json.loads(line) for line in done.stdout.splitlines() if line]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind, in order."""
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def run(self) -> dict[str, Any]:
        [run] = self.of("run")
        return run

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, a dictionary a call."""
        return [record["item"] for record in self.of("history")]

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.run.get("config", {}).get("update", {})) | self._updates("config")

    @property
    def summary(self) -> dict[str, Any]:
        return self._updates("summary")

    @property
    def exit_code(self) -> int:
        [end] = self.of("exit")
        return int(end.get("exit_code", 0))

    def table(self, key: str) -> dict[str, Any]:
        """A W&B Table: its columns and data."""
        [path] = {h[f"{key}.path"] for h in self.history if f"{key}.path" in h}
        return dict(json.loads((self.folder / "files" / path).read_text()))

    def media(self) -> Iterator[str]:
        """The keys under which files were logged."""
        for item in self.history:
            yield from (key.removesuffix(".path") for key in item if key.endswith(".path"))

    def _updates(self, kind: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for record in self.of(kind):
            merged |= record.get("update", {})
        return merged


def written_runs(directory: Path) -> list[WrittenRun]:
    """The W&B runs under a directory, the oldest first."""
    return [WrittenRun(folder) for folder in sorted((directory / "wandb").glob("offline-run-*"))]
