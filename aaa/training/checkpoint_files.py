"""A run's checkpoint and the older ones beside it, by name. Neither torch nor Lightning."""

from __future__ import annotations

from pathlib import Path


def generations(path: Path) -> list[Path]:
    """A checkpoint and the older ones beside it, latest first: last.ckpt, last.1.ckpt, ..."""
    others = (file for file in path.parent.glob(f"{path.stem}.*{path.suffix}"))
    numbered = {int(file.suffixes[-2][1:]): file for file in others if _is_older(file)}
    ordered = [path, *(numbered[number] for number in sorted(numbered))]
    return [file for file in ordered if file.exists()]


def _is_older(file: Path) -> bool:
    return len(file.suffixes) == 2 and file.suffixes[-2][1:].isdigit()


def older(path: Path, number: int) -> Path:
    """The name of the checkpoint that came so many before the latest."""
    return path.with_suffix(f".{number}{path.suffix}")
