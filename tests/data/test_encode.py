"""Tokenising once: the values, the cache and what its key does and does not depend on."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from aaa.data.encode import encode

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e"]


def make_tokenizer(words: list[str] = WORDS, typed: bool = True) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=16,
        model_input_names=names,
    )


def make_data(labels: tuple[float, ...] = (0, 1, 1), split: str | None = "train") -> Dataset:
    texts = {"one": ["a b", "c", "a a a a a a"], "two": ["d", "e e", "zzz"]}
    return Dataset.from_dict({**texts, "label": list(labels)}, split=split)


class Untouchable(PreTrainedTokenizerFast):
    """A tokenizer that must not be called."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("tokenised again")


def untouchable(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.__class__ = Untouchable
    return tokenizer


def test_values_of_pairs() -> None:
    encoded = encode(make_data(), make_tokenizer(), ("one", "two"), 8, "data")
    assert encoded.to_dict() == {
        "input_ids": [[2, 4, 5, 3, 7, 3], [2, 6, 3, 8, 8, 3], [2, 4, 4, 4, 4, 3, 1, 3]],
        "token_type_ids": [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]],
        "label": [0, 1, 1],
        "length": [6, 6, 8],
    }


def test_single_texts_without_token_types_and_with_scores() -> None:
    encoded = encode(make_data((0.5, 1, 5)), make_tokenizer(typed=False), ("two",), 8, "data")
    assert set(encoded.column_names) == {"label", "input_ids", "length"}
    assert encoded.features["label"].dtype == "float32"
    assert encoded["input_ids"][:] == [[2, 7, 3], [2, 8, 8, 3], [2, 1, 3]]
    assert encoded["label"][:] == [0.5, 1.0, 5.0]


def test_parsed_texts_have_their_trees() -> None:
    words = {
        "one_words": [
            [[0, 1, 1], [2, 3, 1]],
            [[0, 1, 0]],
            [[2 * n, 2 * n + 1, 0] for n in range(6)],
        ],
        "two_words": [[[0, 1, 0]], [[0, 1, 0], [2, 3, 0]], [[0, 3, 0]]],
    }
    data = Dataset.from_dict({**make_data().to_dict(), **words}, split="train")
    plain = encode(make_data(), make_tokenizer(), ("one", "two"), 8, "data")
    encoded = encode(data, make_tokenizer(), ("one", "two"), 8, "parsed data")
    assert encoded["syntax_heads"][:] == [
        [0, 2, 0, 0, 0, 0], [0, 0, 0, 0, 3, 0], [0, 0, 1, 1, 1, 0, 0, 0]
    ]  # fmt: skip
    assert encoded.remove_columns("syntax_heads").to_dict() == plain.to_dict()


def test_the_second_time_is_read_from_the_cache(tmp_path: Path) -> None:
    first = encode(make_data(), make_tokenizer(), ("one",), 8, "data", tmp_path)
    tokenizer = make_tokenizer()
    tokenizer(["a", "b"], padding=True, truncation=True, max_length=5)  # leaves state behind
    again = encode(make_data(), untouchable(tokenizer), ("one",), 8, "data", tmp_path)
    assert again.to_dict() == first.to_dict()
    assert again.features == first.features
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_cache_is_made_again(tmp_path: Path, share: float) -> None:
    first = encode(make_data(), make_tokenizer(), ("one",), 8, "data", tmp_path)
    expected = first.to_dict()
    del first
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    again = encode(make_data(), make_tokenizer(), ("one",), 8, "data", tmp_path)
    assert again.to_dict() == expected


def test_a_copied_folder_hits_the_same_cache(tmp_path: Path) -> None:
    for name in ("here", "there"):
        make_data().to_parquet(str(tmp_path / f"{name}.parquet"))
    here, there = (
        Dataset.from_parquet(str(tmp_path / f"{name}.parquet"), cache_dir=str(tmp_path / name))
        for name in ("here", "there")
    )
    cache = tmp_path / "cache"
    first = encode(here, make_tokenizer(), ("one",), 8, "data", cache)
    again = encode(there, untouchable(make_tokenizer()), ("one",), 8, "data", cache)
    assert again.to_dict() == first.to_dict()


def test_whatever_shapes_the_result_is_in_the_key(tmp_path: Path) -> None:
    cut_left = make_tokenizer()
    cut_left.truncation_side = "left"
    plain_text = make_tokenizer()
    plain_text.split_special_tokens = True  # [SEP] in a text is text
    variants: list[tuple[Dataset, PreTrainedTokenizerBase, tuple[str, ...], int, str]] = [
        (make_data(), make_tokenizer(), ("one",), 8, "data"),
        (make_data(), make_tokenizer(), ("one",), 7, "data"),
        (make_data(), make_tokenizer(), ("two",), 8, "data"),
        (make_data(), make_tokenizer(), ("one", "two"), 8, "data"),
        (make_data(), make_tokenizer(), ("two", "one"), 8, "data"),
        (make_data(), make_tokenizer(), ("one",), 8, "other data"),
        (make_data(), make_tokenizer(WORDS[:-1]), ("one",), 8, "data"),
        (make_data(), make_tokenizer(typed=False), ("one",), 8, "data"),
        (make_data(), cut_left, ("one",), 8, "data"),
        (make_data(), plain_text, ("one",), 8, "data"),
        (make_data(split="validation"), make_tokenizer(), ("one",), 8, "data"),
        (make_data().select([0]), make_tokenizer(), ("one",), 8, "data"),
    ]
    for count, variant in enumerate(variants, start=1):
        encode(*variant, cache_dir=tmp_path)
        assert len(list(tmp_path.iterdir())) == count


def test_without_a_cache_folder_nothing_is_written(tmp_path: Path) -> None:
    make_data().to_parquet(str(tmp_path / "data.parquet"))
    data = Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path / "cache"))
    before = sorted(tmp_path.rglob("*"))
    assert encode(data, make_tokenizer(), ("one",), 8, "data").cache_files == []
    assert sorted(tmp_path.rglob("*")) == before


def test_it_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            encode(make_data(), make_tokenizer(), ("one",), 8, "data", tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("columns", "max_length", "message"),
    [
        (("one",), 17, "max_length is 17, but .* takes at most 16"),
        (("one",), 2, "needs 3 tokens"),
        (("one", "two"), 4, "needs 5 tokens"),
    ],
)
def test_lengths_out_of_range(columns: tuple[str, ...], max_length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(make_data(), make_tokenizer(), columns, max_length, "data")


def test_the_split_must_be_set() -> None:
    with pytest.raises(ValueError, match="split is not set"):
        encode(make_data(split=None), make_tokenizer(), ("one",), 8, "data")


def test_slow_tokenizers_are_refused() -> None:
    class Slow:
        is_fast = False
        name_or_path = "some/model"

    slow: Any = Slow()
    with pytest.raises(ValueError, match="some/model has no fast version"):
        encode(make_data(), slow, ("one",), 8, "data")


@pytest.mark.slow
def test_processes_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_encode import *\n"
        "rows = {'one': ['a b c'] * 50_000, 'label': [0] * 50_000}\n"
        "data = Dataset.from_dict(rows, split='train')\n"
        "done = encode(data, make_tokenizer(), ('one',), 8, 'data', Path(sys.argv[2]))\n"
        "assert done['length'][:] == [5] * 50_000\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert len(list(tmp_path.iterdir())) == 1
    rows = Dataset.from_dict({"one": ["a b c"] * 50_000, "label": [0] * 50_000}, split="train")
    again = encode(rows, untouchable(make_tokenizer()), ("one",), 8, "data", tmp_path)
    assert again["length"][:] == [5] * 50_000
