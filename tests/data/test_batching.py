"""Samplers as properties: nothing lost, nothing twice, the same over ranks and after a restart."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from aaa.data.batching import Collate, EvalBatches, TrainBatches, batches_per_epoch

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "glue"

lengths_strategy = st.lists(st.integers(1, 50), min_size=1, max_size=400)
properties = settings(deadline=None, max_examples=60)


def padding_share(batches: Iterable[list[int]], lengths: np.ndarray) -> float:
    """Share of the cells of padded batches that hold padding."""
    batches = list(batches)
    tokens = sum(int(lengths[batch].sum()) for batch in batches)
    return 1 - tokens / sum(len(batch) * int(lengths[batch].max()) for batch in batches)


@properties
@given(lengths=lengths_strategy, size=st.integers(1, 9), seed=st.integers(0, 2**40))
def test_an_epoch_is_a_permutation(lengths: list[int], size: int, seed: int) -> None:
    n, per_epoch = len(lengths), batches_per_epoch(len(lengths), size)
    batches = list(TrainBatches(lengths, size, 3 * per_epoch, seed))
    assert len(batches) == 3 * per_epoch
    for epoch in range(3):
        mine = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(chain.from_iterable(mine)) == list(range(n))
        assert [len(batch) for batch in mine[:-1]] == [size] * (per_epoch - 1)


@properties
@given(
    lengths=lengths_strategy,
    size=st.integers(1, 9),
    num=st.integers(1, 200),
    world=st.integers(1, 3),
    data=st.data(),
)
def test_a_resumed_run_yields_the_identical_tail(
    lengths: list[int], size: int, num: int, world: int, data: st.DataObject
) -> None:
    start, rank = data.draw(st.integers(0, num)), data.draw(st.integers(0, world - 1))
    whole = TrainBatches(lengths, size, num, 7, rank=rank, world_size=world)
    tail = TrainBatches(lengths, size, num, 7, start=start, rank=rank, world_size=world)
    assert len(list(whole)) == len(whole) == len(tail) == num
    assert list(tail) == list(whole)[start:]
    assert list(tail) == list(tail)


@properties
@given(lengths=lengths_strategy, size=st.integers(1, 6), world=st.integers(1, 5))
def test_ranks_together_are_one_process(lengths: list[int], size: int, world: int) -> None:
    n, total = len(lengths), size * world
    per_epoch = batches_per_epoch(n, total)
    num = 2 * per_epoch
    single = list(TrainBatches(lengths, total, num, 3))
    ranks = [list(TrainBatches(lengths, size, num, 3, 0, r, world)) for r in range(world)]
    for k, (whole, *shares) in enumerate(zip(single, *ranks, strict=True)):
        assert len({len(share) for share in shares}) == 1
        assert shares[0]
        together = [0] * sum(map(len, shares))
        for rank, share in enumerate(shares):
            together[rank::world] = share
        assert together[: len(whole)] == whole
        filled = len(together) - len(whole)
        assert filled < world
        assert filled == 0 or (k + 1) % per_epoch == 0


def test_epochs_and_seeds_differ() -> None:
    lengths = np.arange(1, 101)
    batches = list(TrainBatches(lengths, 10, 20, seed=0))
    assert batches[:10] != batches[10:]
    assert batches != list(TrainBatches(lengths, 10, 20, seed=1))
    assert batches == list(TrainBatches(lengths, 10, 20, seed=0))


def test_lengths_are_alike_within_and_not_ordered_between_batches() -> None:
    lengths = np.random.default_rng(0).integers(5, 120, 16 * 200 + 3)
    batches = list(TrainBatches(lengths, 16, 201, seed=0))
    assert padding_share(batches, lengths) < 0.05
    means = np.array([lengths[batch].mean() for batch in batches])
    assert abs(means[:50].mean() - means.mean()) < 12
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_the_smaller_last_batch_is_not_of_one_length() -> None:
    lengths = np.arange(1000)
    last = [list(TrainBatches(lengths, 300, 4, seed))[-1] for seed in range(30)]
    assert all(len(batch) == 100 for batch in last)
    assert abs(np.mean([lengths[batch].mean() for batch in last]) - 499.5) < 30


@properties
@given(lengths=lengths_strategy, size=st.integers(1, 9), world=st.integers(1, 6))
def test_evaluation_sees_every_example_once(lengths: list[int], size: int, world: int) -> None:
    ranks = [EvalBatches(lengths, size, rank, world) for rank in range(world)]
    seen = [index for batches in ranks for batch in batches for index in batch]
    assert sorted(seen) == list(range(len(lengths)))
    counts = [sum(map(len, batches)) for batches in ranks]
    assert max(counts) - min(counts) <= 1
    for batches in ranks:
        assert len(list(batches)) == len(batches)
        assert all(0 < len(batch) <= size for batch in batches)
        mine = [lengths[index] for batch in batches for index in batch]
        assert mine == sorted(mine, reverse=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": []}, "no examples"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_batches": 0}, "num_batches"),
        ({"start": 4}, "start"),
        ({"seed": -1}, "seed"),
        ({"rank": 2, "world_size": 2}, "rank"),
    ],
)
def test_senseless_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {"lengths": [1, 2], "batch_size": 1, "num_batches": 3, "seed": 0}
    with pytest.raises(ValueError, match=message):
        TrainBatches(**{**arguments, **change})


# ---- padding


def tokenizer(side: str = "right") -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", padding_side=side
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("regression", [True, False])
def test_collate_is_tokenizer_pad(side: str, typed: bool, regression: bool) -> None:
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for length in (3, 7, 1, 7):
        rows.append({"input_ids": random.integers(2, 99, length).tolist()})
        if typed:
            rows[-1]["token_type_ids"] = random.integers(0, 2, length).tolist()
    expected = tokenizer(side).pad([dict(row) for row in rows], return_tensors="pt")
    labels = [0.5, 1.0, 2.0, 5.0] if regression else [0, 1, 2, 1]
    for row, label in zip(rows, labels, strict=True):
        row.update(label=label, length=len(row["input_ids"]))
    batch = Collate(tokenizer(side), regression)(rows)
    assert batch.keys() == {*expected.keys(), "labels"}
    for name, values in expected.items():
        assert torch.equal(batch[name], values)
        assert batch[name].dtype == torch.int64
    assert batch["labels"].tolist() == labels
    assert batch["labels"].dtype == (torch.float32 if regression else torch.int64)


@pytest.mark.parametrize("side", ["left", "right"])
def test_trees_are_padded_with_minus_one(side: str) -> None:
    rows = [{"input_ids": [5, 6, 7], "syntax_heads": [0, 0, -2], "label": 0},
            {"input_ids": [5], "syntax_heads": [0], "label": 1}]  # fmt: skip
    heads_BN = Collate(tokenizer(side), False)(rows)["syntax_heads"]
    assert heads_BN.tolist() == [[0, 0, -2], [-1, -1, 0] if side == "left" else [0, -1, -1]]
    assert heads_BN.dtype == torch.int64


def test_collate_needs_a_padding_token() -> None:
    unpadded = tokenizer()
    unpadded.pad_token = None
    with pytest.raises(ValueError, match="no padding token"):
        Collate(unpadded, False)


def test_in_a_data_loader() -> None:
    rows = [{"input_ids": [5] * n, "label": n % 2} for n in range(1, 12)]
    sampler = TrainBatches(range(1, 12), 4, 6, 0)
    loader: DataLoader[Any] = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=Collate(tokenizer(), False),
    )
    batches = list(loader)
    assert len(batches) == len(loader) == 6
    assert sum(len(batch["labels"]) for batch in batches) == 22


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not here")
@pytest.mark.parametrize(
    ("name", "columns"),
    [("cola", ["sentence"]), ("rte", ["sentence1", "sentence2"])],
)
def test_bucketing_saves_most_of_the_padding_of_real_tasks(
    name: str, columns: list[str], tmp_path: Path
) -> None:
    file = SHARED / name / "train-00000-of-00001.parquet"
    data = Dataset.from_parquet(str(file), keep_in_memory=True, cache_dir=str(tmp_path))
    words = [[len(text.split()) for text in data[column]] for column in columns]
    lengths = np.minimum(np.sum(words, 0) + len(words) + 1, 128)
    order = np.random.default_rng(0).permutation(len(lengths))
    shuffled = [part.tolist() for part in np.array_split(order, len(order) // 32)]
    bucketed = TrainBatches(lengths, 32, batches_per_epoch(len(lengths), 32), seed=0)
    unsorted_share = padding_share(shuffled, lengths)
    assert padding_share(bucketed, lengths) < 0.2 * unsorted_share
