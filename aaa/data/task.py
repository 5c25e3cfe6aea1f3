"""What a task is: where its texts and labels come from and how an answer is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aaa.names import known_name

if TYPE_CHECKING:
    from datasets import Dataset

CLASSIFICATION_METRICS = ("accuracy", "f1", "matthews")
REGRESSION_METRICS = ("spearman", "pearson")
METRICS = CLASSIFICATION_METRICS + REGRESSION_METRICS


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One text classification or regression task, on single texts or on pairs.

    Args:
        name: Short name, such as ``rte``; messages and result files use it.
        columns: The one or two text columns, in the order in which they are fed to the encoder.
        num_labels: Number of classes; 1 means regression.
        metrics: Names out of :data:`METRICS`. The first is the headline, the figure of a table.

    Raises:
        ValueError: If a field has a value that makes no sense; the message names the field.
    """

    name: str
    columns: tuple[str, ...]
    num_labels: int
    metrics: tuple[str, ...]

    def __post_init__(self) -> None:
        """Turn Hydra's lists into tuples, then check every field."""
        if not self.name:
            raise ValueError("task.name is empty; give the task a name such as 'rte'")
        for field in ("columns", "metrics"):
            object.__setattr__(self, field, _names(field, getattr(self, field)))
        if len(self.columns) > 2:
            raise ValueError(
                f"task.columns must be one or two text columns, not {len(self.columns)}: "
                f"{list(self.columns)}"
            )
        if isinstance(self.num_labels, bool) or not isinstance(self.num_labels, int):
            raise ValueError(f"task.num_labels must be an integer, not {self.num_labels!r}")
        if self.num_labels < 1:
            raise ValueError(
                f"task.num_labels is {self.num_labels}; give the number of classes, or 1 for "
                "regression"
            )
        self._check_metrics()

    def _check_metrics(self) -> None:
        """Every metric must be known and must suit the kind of label."""
        kind, fitting = (
            ("regression (num_labels 1)", REGRESSION_METRICS)
            if self.is_regression
            else ("classification", CLASSIFICATION_METRICS)
        )
        for metric in self.metrics:
            known_name(metric, METRICS, "task.metrics: metric")
            if metric not in fitting:
                raise ValueError(
                    f"task.metrics: {metric!r} does not suit {kind}; suitable: {list(fitting)}"
                )
        if "f1" in self.metrics and self.num_labels != 2:
            raise ValueError(
                "task.metrics: 'f1' is that of class 1 of two, but task.num_labels is "
                f"{self.num_labels}"
            )

    @property
    def headline(self) -> str:
        """The metric a table reports: the first of ``metrics``."""
        return self.metrics[0]

    @property
    def is_regression(self) -> bool:
        """Whether labels are real numbers (``num_labels == 1``) rather than class numbers."""
        return self.num_labels == 1

    @abstractmethod
    def load(self) -> dict[str, Dataset]:
        """Read the data.

        Returns:
            Datasets with the text columns and ``label``, keyed by split: always ``train`` and
            ``validation``; any further key is a further split to evaluate on, but for ``test``,
            which is evaluated once, when training has ended, and is then what is reported. Each
            has its ``split`` set: together with :meth:`fingerprint` it names the encoded rows'
            cache.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Identify the data: equal strings mean equal data, wherever it is stored."""


def _names(field: str, value: Sequence[str]) -> tuple[str, ...]:
    """A field's list of names as a tuple: not empty, no name twice."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"task.{field} must be a list of names, not {value!r}")
    names = tuple(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"task.{field} must be one or more names, not {list(names)}")
    if len(set(names)) < len(names):
        raise ValueError(f"task.{field} names something twice: {list(names)}")
    return names
