"""``DemoTask``: a generated task behind the interface of every other task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from aaa.data.demo import generators
from aaa.data.task import Task
from aaa.names import known_name

if TYPE_CHECKING:
    from datasets import Dataset

GENERATOR_VERSION = 1  # to be raised with every change to what a seed generates


@dataclass(frozen=True)
class Kind:
    """One of the demo's tasks: who generates it, and its fields as a ``Task``."""

    generate: Callable[[Random], generators.Example]
    columns: tuple[str, ...]
    num_labels: int
    metrics: tuple[str, ...]


KINDS = {
    "acceptability": Kind(generators.acceptability, ("sentence",), 2, ("matthews", "accuracy")),
    "polarity": Kind(generators.polarity, ("sentence",), 2, ("accuracy",)),
    "paraphrase": Kind(generators.paraphrase, ("sentence1", "sentence2"), 2, ("f1", "accuracy")),
    "similarity": Kind(
        generators.similarity, ("sentence1", "sentence2"), 1, ("spearman", "pearson")
    ),
    "review": Kind(generators.review, ("text",), 2, ("accuracy",)),
    "entailment": Kind(generators.entailment, ("premise", "hypothesis"), 3, ("accuracy",)),
}


@dataclass(frozen=True, kw_only=True)
class DemoTask(Task):
    """A generated task. The same arguments give the same data, on every machine.

    The name, columns, labels and metrics follow from the kind. No text (or pair of texts) occurs
    twice, so no example of the validation split is in the training split. The validation split
    does not depend on ``num_train``.

    Args:
        kind: ``acceptability``, ``polarity``, ``paraphrase``, ``similarity``, ``entailment`` or
            ``review``; ``aaa.data.demo.generators`` says what each asks.
        num_train: Number of training examples.
        num_validation: Number of validation examples.
        seed: Of the generator.

    Raises:
        ValueError: If the kind is unknown or a number of examples is not positive.
    """

    kind: str
    num_train: int = 8000
    num_validation: int = 500
    seed: int = 0
    name: str = field(init=False)
    columns: tuple[str, ...] = field(init=False)
    num_labels: int = field(init=False)
    metrics: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Fill in what follows from the kind, and check what was given."""
        known_name(self.kind, KINDS, "demo task kind")
        for size in ("num_train", "num_validation"):
            if getattr(self, size) < 1:
                raise ValueError(f"task.{size} must be 1 or more, not {getattr(self, size)}")
        kind = KINDS[self.kind]
        object.__setattr__(self, "name", f"demo_{self.kind}")
        for attribute in ("columns", "num_labels", "metrics"):
            object.__setattr__(self, attribute, getattr(kind, attribute))
        super().__post_init__()

    def load(self) -> dict[str, Dataset]:
        """Generate both splits: ``train`` and ``validation``, text columns and ``label``."""
        from datasets import Dataset, Features, Value

        rng, generate = Random(self.seed), KINDS[self.kind].generate
        drawn: dict[tuple[str, ...], float] = {}
        while len(drawn) < self.num_validation + self.num_train:
            texts, label = generate(rng)
            drawn.setdefault(texts, label)
        examples = [(*texts, label) for texts, label in drawn.items()]
        features = Features(
            {column: Value("string") for column in self.columns}
            | {"label": Value("float32" if self.is_regression else "int64")}
        )
        splits = {
            "train": examples[self.num_validation :],
            "validation": examples[: self.num_validation],
        }
        return {
            split: Dataset.from_dict(
                dict(zip(features, zip(*rows, strict=True), strict=True)),
                features=features,
                split=split,
            )
            for split, rows in splits.items()
        }

    def fingerprint(self) -> str:
        """What decides the data: the generator's version and the arguments."""
        return (
            f"{self.name}-v{GENERATOR_VERSION}-seed{self.seed}"
            f"-{self.num_train}+{self.num_validation}"
        )
