"""GLUE (Wang et al., 2019), from the Hugging Face hub or from a local folder laid out alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import datasets
import numpy as np
from datasets import Dataset

from aaa.data.source import cache_of_folder, open_source, quiet_datasets
from aaa.data.task import Task
from aaa.fingerprint import hash_files, hash_json
from aaa.places import local_folder

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class GlueTask(Task):
    """A task of GLUE: its ``name`` is a configuration of the dataset at ``path``.

    Args:
        configuration: Where the dataset's configuration has another name than the task.
        path: Hub id, or a local folder of the same layout (parquet files and a README.md whose
            header lists the configurations).
        revision: Commit, branch or tag on the hub; a local folder has none and ignores it.
        splits: Which of the dataset's splits serves as ``train``, as ``validation`` and as any
            further split to evaluate on.

    Raises:
        ValueError: If a field makes no sense, as in :class:`Task`.
    """

    path: str = "nyu-mll/glue"
    revision: str | None = None
    configuration: str | None = None
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation"}, hash=False
    )

    def __post_init__(self) -> None:
        """Check the fields, as the base class does."""
        super().__post_init__()
        if not isinstance(self.splits, Mapping):
            raise ValueError(
                "task.splits must be a mapping such as {train: train, validation: validation}, "
                f"not {self.splits!r}"
            )
        object.__setattr__(self, "splits", dict(self.splits))
        if not self.path:
            raise ValueError("task.path is empty; give a hub id or a local folder")
        if missing := {"train", "validation"} - {*self.splits, *self._drawn}:
            raise ValueError(f"task.splits must name a split for each of {sorted(missing)}")

    @property
    def _drawn(self) -> tuple[str, ...]:
        """The splits that are not the dataset's own."""
        return ()

    def load(self) -> dict[str, Dataset]:
        """Read and check the data.

        Returns:
            For every key of ``splits``, the text columns and ``label``, rows in their order.

        Raises:
            ValueError: If the data cannot be found, or is not what the task says: a split or a
                column is missing, or a label is missing or out of range.
        """
        if self._folder() is None:
            found = self._open(datasets.load_dataset)
        else:
            cache = cache_of_folder(self.fingerprint())
            with quiet_datasets():
                found = self._open(datasets.load_dataset, cache_dir=cache)
        return {
            key: self._checked(found[split], split)
            for key, split in self._present(found.keys()).items()
        }

    def fingerprint(self) -> str:
        """The content's SHA-256 for a local folder, ``path@revision`` for the hub.

        The former depends only on the files of this task's ``splits``, not on where they lie or
        when they were written. On the hub, ``main`` may move: pin a revision to be sure.

        Raises:
            ValueError: If the local data cannot be found, as in :meth:`load`.
        """
        if self._folder() is None:
            return f"{self.path}@{self.revision or 'main'}"
        files = self._open(datasets.load_dataset_builder).config.data_files
        return hash_json(
            {
                key: hash_files(map(Path, files[split]))
                for key, split in self._present(files).items()
            }
        )

    def _folder(self) -> Path | None:
        return local_folder(self.path, "data.path")

    def _open(self, opener: Callable[..., T], **options: str) -> T:
        """Call one of ``datasets``' openers on this task."""
        who, configuration = f"task {self.name}", self.configuration or self.name
        return open_source(opener, who, self.path, configuration, self.revision, **options)

    def _present(self, found: Iterable[object]) -> dict[str, str]:
        """``splits``, every one of which must be among those ``found``."""
        names = [str(name) for name in found]
        for key, split in self.splits.items():
            if split not in names:
                raise ValueError(
                    f"task {self.name}: {self.path} has no split {split!r}, needed for {key}; it "
                    f"has: {names}"
                )
        return dict(self.splits)

    def _checked(self, dataset: Dataset, split: str) -> Dataset:
        """The needed columns of a split, once texts and labels are known to be sound."""
        where = f"task {self.name}, split {split!r} of {self.path}"
        needed = [*self.columns, "label"]
        if missing := [name for name in needed if name not in dataset.column_names]:
            raise ValueError(f"{where}: no column {missing}; it has: {dataset.column_names}")
        dataset = dataset.select_columns(needed)
        table = dataset.with_format("arrow")[:]
        for name in needed:
            if nulls := table[name].null_count:
                raise ValueError(f"{where}: column {name!r} is empty in {nulls} rows")
        self._check_labels(table["label"].to_numpy(), where)
        return dataset

    def _check_labels(self, labels: np.ndarray, where: str) -> None:
        """Labels are class numbers, or for regression finite scores of 0 or more."""
        kinds = "fiu" if self.is_regression else "iu"
        if labels.dtype.kind not in kinds:
            raise ValueError(
                f"{where}: labels are {labels.dtype}, which do not suit task.num_labels "
                f"{self.num_labels}"
            )
        if unlabelled := int((labels == -1).sum()):
            raise ValueError(
                f"{where}: {unlabelled} rows have label -1, that is none, as in GLUE's test "
                "splits; choose a labelled split in task.splits"
            )
        highest = np.finfo(np.float64).max if self.is_regression else self.num_labels - 1
        # The comparison is false for NaN, so that NaN counts as bad.
        if bad := int((~((labels >= 0) & (labels <= highest))).sum()):
            allowed = "finite and 0 or more" if self.is_regression else f"0 to {highest}"
            raise ValueError(f"{where}: {bad} labels are not {allowed}")
