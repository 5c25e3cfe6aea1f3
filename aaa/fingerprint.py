"""Identity by content: what names runs, caches and the data that they were made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any


def hash_json(value: Any) -> str:
    """The sha256 of a value of plain Python types, the same on every machine."""
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_files(files: Iterable[Path]) -> str:
    """The sha256 of the files' contents in the given order, whatever their paths and times."""
    files = list(files)
    for noted in _noting:
        noted.update(path.resolve() for path in files)
    return hash_json([_hash_file(path, *stamp(path)) for path in files])


@contextmanager
def files_hashed() -> Iterator[set[Path]]:
    """Notes which files are hashed within the block: what a hash stays true for."""
    noted: set[Path] = set()
    _noting.append(noted)
    try:
        yield noted
    finally:
        _noting.remove(noted)


_noting: list[set[Path]] = []


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file or folder: what changes when it is written."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=1024)
def _hash_file(path: Path, size: int, modified: int) -> str:
    """Reads a file once in a process, for as long as its size and time stay what they are."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    assert value is None or isinstance(value, (str, int, float, bool)), (
        f"no plain value: {value!r}"
    )
    return value
