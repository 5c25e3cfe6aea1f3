"""A dataset at a place: a hub id or a local folder of the same layout, opened by ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.exceptions import DatasetsError

from aaa.places import first_line, local_folder

T = TypeVar("T")

ELSEWHERE = "nor is there a local folder of that name; data.path may be one, laid out alike"


def open_source(
    opener: Callable[..., T],
    who: str,
    path: str,
    config: str,
    revision: str | None,
    **options: Any,
) -> T:
    """Call one of ``datasets``' openers; its errors become ValueErrors that begin with ``who``.

    Raises:
        ValueError: If the folder or the hub's data set cannot be had, has no such ``config``, or
            has files that are damaged or without rows.
    """
    folder = local_folder(path, "data.path")
    place, revision = (str(folder), None) if folder else (path, revision)
    try:
        return opener(place, config, revision=revision, **options)
    except ConnectionError as error:
        raise ValueError(
            f"{who}: no network: the hub's {place} cannot be reached, {ELSEWHERE}"
        ) from error
    except FileNotFoundError as error:
        advice = "" if folder else f", {ELSEWHERE}"
        raise ValueError(f"{who}: {first_line(error)}{advice}") from error
    except (DatasetsError, pa.ArrowException) as error:  # neither says which file it was
        why = _damage(place, config) if folder else None
        raise ValueError(
            f"{who}: data.path {place}: {why or first_line(error.__cause__ or error)}"
        ) from error
    except ValueError as error:  # says which configurations there are, if not this one
        raise ValueError(f"{who}: {place}: {first_line(error)}") from error


def _damage(folder: str, config: str) -> str | None:
    """What is wrong with the first file of a folder that is damaged or has no rows."""
    files = datasets.load_dataset_builder(folder, config).config.data_files
    for path in (path for split in files.values() for path in split if path.endswith(".parquet")):
        try:
            if not pq.read_metadata(path).num_rows:
                return f"{path} has no rows"
        except (pa.ArrowException, OSError) as error:
            return f"{path} cannot be read: {first_line(error)}"
    return None


def cache_of_folder(fingerprint: str) -> str:
    """Where ``datasets`` is to cache a folder: by default it would do so under its last name."""
    return str(Path(datasets.config.HF_DATASETS_CACHE, "by-content", fingerprint))


@contextmanager
def quiet_datasets(when: bool = True) -> Iterator[None]:
    """Switch off the progress bars of ``datasets`` within the block, if ``when`` is true."""
    if not when or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
