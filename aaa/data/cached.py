"""Work on the rows of a dataset, done once: what comes of it is kept by its content."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features
from pyarrow import ArrowInvalid

from aaa.data.source import quiet_datasets

log = logging.getLogger(__name__)

# Up to this many rows the work takes about a second, too short for a progress bar.
QUIET_ROWS = 20_000

Batch = dict[str, list[Any]]


def cached_map(
    dataset: Dataset,
    work: Callable[[Batch], Batch],
    features: Features,
    key: str,
    cache_dir: Path | None,
    doing: str,
    remove_columns: Sequence[str] = (),
) -> Dataset:
    """``dataset.map``, in batches, cached in ``cache_dir`` under ``key``; None keeps it in memory.

    ``key`` must differ wherever the result may.
    """
    if cache_dir is not None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _drop_if_damaged(cache_dir / f"{key}.arrow")
    with quiet_datasets(when=len(dataset) <= QUIET_ROWS):
        # ``datasets`` writes to a temporary file and renames it, so two processes that find no
        # file do the work twice and leave one whole file.
        return dataset.map(
            work,
            batched=True,
            remove_columns=list(remove_columns),
            features=features,
            keep_in_memory=cache_dir is None,
            load_from_cache_file=cache_dir is not None,
            cache_file_name=None if cache_dir is None else str(cache_dir / f"{key}.arrow"),
            # Given here, it need not be made from the function by dill, which warns and differs
            # between processes.
            new_fingerprint=key,
            desc=f"{doing} {dataset.split}",
        )


def _drop_if_damaged(file: Path) -> None:
    """A full disk or a power cut may have left a part of it; the work is then done again."""
    if not file.exists():
        return
    try:
        Dataset.from_file(str(file))
    except (OSError, ArrowInvalid) as error:
        log.warning("%s is damaged and made again: %s", file, error)
        file.unlink()
