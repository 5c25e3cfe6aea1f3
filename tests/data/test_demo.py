"""The demo's generated tasks: repeatable, disjoint, balanced, and not to be told by length."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from random import Random

import pytest

from aaa.data.demo import DemoTask, lexicon, vocabulary
from aaa.data.demo.task import KINDS
from aaa.data.task import Task


def rows(kind: str, split: str = "train", **options: int) -> list[tuple]:
    task = DemoTask(kind=kind, **({"num_train": 600, "num_validation": 100} | options))
    data = task.load()[split]
    return list(zip(*(data[column] for column in (*task.columns, "label")), strict=True))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_is_a_task_with_both_splits(self, kind: str) -> None:
        task = DemoTask(kind=kind, num_train=20, num_validation=10)
        assert isinstance(task, Task)
        data = task.load()
        assert {split: len(rows) for split, rows in data.items()} == {
            "train": 20,
            "validation": 10,
        }
        assert data["train"].column_names == [*task.columns, "label"]

    def test_same_seed_same_data_other_seed_other_data(self, kind: str) -> None:
        assert rows(kind) == rows(kind)
        assert rows(kind) != rows(kind, seed=1)

    def test_no_text_occurs_twice_so_the_splits_are_disjoint(self, kind: str) -> None:
        texts = [row[:-1] for split in ("train", "validation") for row in rows(kind, split)]
        assert len(set(texts)) == len(texts) == 700

    def test_validation_does_not_depend_on_the_size_of_train(self, kind: str) -> None:
        assert rows(kind, "validation") == rows(kind, "validation", num_train=5)

    def test_every_word_is_in_the_vocabulary(self, kind: str) -> None:
        words = {word for row in rows(kind) for text in row[:-1] for word in text.split()}
        assert words <= set(vocabulary())

    def test_lengths_do_not_tell_the_label(self, kind: str) -> None:
        rng = Random(0)
        examples = [KINDS[kind].generate(rng) for _ in range(6000)]
        lengths = [sum(len(text.split()) for text in texts) for texts, _ in examples]
        # 0.013 is the standard error of no correlation at all
        assert abs(correlation(lengths, [label for _, label in examples])) < 0.045

    def test_labels_are_balanced(self, kind: str) -> None:
        shares = Counter(row[-1] for row in rows(kind, num_train=3000))
        num_labels = DemoTask(kind=kind).num_labels
        if num_labels == 1:
            assert min(shares) == 0
            assert max(shares) == 5
        else:
            assert set(shares) == set(range(num_labels))
            assert min(shares.values()) > 0.8 * 3000 / num_labels


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    mean_first, mean_second = sum(first) / len(first), sum(second) / len(second)
    pairs = [(a - mean_first, b - mean_second) for a, b in zip(first, second, strict=True)]
    variances = sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs)
    return sum(a * b for a, b in pairs) / variances**0.5


def facts(text: str) -> set[str]:
    return set(text.removesuffix(" .").split(" , "))


def test_entailment_labels_follow_from_the_facts() -> None:
    for premise, hypothesis, label in rows("entailment"):
        (claim,) = facts(hypothesis)
        name, verb, _ = claim.split()
        told = {fact.split()[0]: fact for fact in facts(premise)}
        if claim in facts(premise):
            assert label == 0
        else:
            contradicted = name in told and told[name].split()[1] == verb
            assert label == (2 if contradicted else 1)


def test_similarity_is_the_share_of_things_in_both() -> None:
    for *texts, label in rows("similarity"):
        first, second = (
            set(text.removeprefix("there is ").replace(" and ", " , ")[:-2].split(" , "))
            for text in texts
        )
        assert len(first) == len(second)
        assert label == pytest.approx(5 * len(first & second) / len(first))


def test_reviews_are_as_most_of_their_sentences_are() -> None:
    for text, label in rows("review"):
        words = text.split()
        praise, blame = (
            sum(word in known for word in words) for known in (lexicon.POSITIVE, lexicon.NEGATIVE)
        )
        assert (praise + blame) in (5, 7, 9)
        assert label == int(praise > blame)


def test_sentences_are_acceptable_where_all_numbers_agree() -> None:
    pairs = (*lexicon.NOUNS, *lexicon.VERBS, lexicon.DETERMINERS)
    number_of = {word: number for pair in pairs for number, word in enumerate(pair)}
    for sentence, label in rows("acceptability"):
        *before, main = sentence.split(" , ")
        *phrases, verb = [number_of[word] for word in main.split() if word in number_of]
        fronted = [number_of[w] for part in before for w in part.split() if w in number_of]
        numbers = [*fronted, *phrases]
        agree = numbers[::2] == numbers[1::2] and verb == phrases[1]
        assert label == agree


def test_data_are_those_of_this_generator_version() -> None:
    """A change to the generators must raise GENERATOR_VERSION: cached data hang on it."""
    first = [KINDS[kind].generate(Random(0)) for kind in KINDS]
    assert sha256(repr(first).encode()).hexdigest()[:16] == "4f5263d12a0af766"


def test_fingerprint_holds_everything_that_decides_the_data() -> None:
    tasks = [
        DemoTask(kind="polarity"),
        DemoTask(kind="entailment"),
        DemoTask(kind="polarity", seed=1),
        DemoTask(kind="polarity", num_train=7),
        DemoTask(kind="polarity", num_validation=7),
    ]
    assert len({task.fingerprint() for task in tasks}) == len(tasks)
    assert DemoTask(kind="polarity").fingerprint() == tasks[0].fingerprint()


def test_unknown_kind_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"demo task kind 'cola' is unknown.*acceptability, polarity"
    ):
        DemoTask(kind="cola")


@pytest.mark.parametrize("size", ["num_train", "num_validation"])
def test_sizes_must_be_positive(size: str) -> None:
    with pytest.raises(ValueError, match=f"task.{size} must be 1 or more, not 0"):
        DemoTask(kind="polarity", **{size: 0})
