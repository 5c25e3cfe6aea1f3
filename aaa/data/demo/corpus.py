"""The demo's corpus: documents in the words of its tasks, to pre-train the tiny encoder on."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from aaa.data.corpus import TEXT, Corpus
from aaa.data.demo.task import GENERATOR_VERSION, KINDS

if TYPE_CHECKING:
    from datasets import Dataset

CORPUS_VERSION = 1  # to be raised with every change to how documents are put together
MOST_EXAMPLES = 3  # of a task in one document


@dataclass(frozen=True, kw_only=True)
class DemoCorpus(Corpus):
    """Generated documents: texts of one of the demo's tasks after each other, without labels.

    The two texts of a pair follow each other, so that a word hidden in one can often be found in
    the other: what there is to be learned is what the pair tasks ask for.

    Args:
        num_documents: how many.
        seed: of the generators. The demo tasks have 0, so their texts are others, but for short
            ones that both happen to draw.

    Raises:
        ValueError: if there are no documents.
    """

    name: str = "demo_corpus"
    num_documents: int = 6000
    seed: int = 1

    def __post_init__(self) -> None:
        if self.num_documents < 1:
            raise ValueError(f"corpus.num_documents must be 1 or more, not {self.num_documents}")

    def load(self) -> Dataset:
        from datasets import Dataset, Features, Value

        rng, kinds = Random(self.seed), list(KINDS.values())
        documents = []
        for _ in range(self.num_documents):
            generate = rng.choice(kinds).generate
            examples = [generate(rng)[0] for _ in range(rng.randint(1, MOST_EXAMPLES))]
            documents.append(" ".join(text for texts in examples for text in texts))
        return Dataset.from_dict({TEXT: documents}, features=Features({TEXT: Value("string")}))

    def fingerprint(self) -> str:
        return (
            f"{self.name}-v{CORPUS_VERSION}.{GENERATOR_VERSION}-seed{self.seed}"
            f"-{self.num_documents}"
        )
