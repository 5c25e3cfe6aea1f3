"""Blocks share out all tokens; their order is the same however it is divided and resumed."""

from __future__ import annotations

import numpy as np
import pytest

from aaa.data.blocks import Blocks, MaskedBlocks, StepBatches
from aaa.data.masking import IGNORED, Masking
from aaa.data.packing import TokenStream
from aaa.models.tiny import TinyEncoder

TOKENIZER = TinyEncoder().tokenizer()
CLS, SEP, PAD = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, TOKENIZER.pad_token_id


def stream(count: int) -> TokenStream:
    return TokenStream([np.arange(10, 10 + count, dtype=np.uint16)])


def masked(count: int = 97, shuffle_seed: int | None = 0) -> MaskedBlocks:
    masking = Masking(0.15, len(TOKENIZER), TOKENIZER.mask_token_id, (PAD, CLS, SEP), 0)
    return MaskedBlocks(Blocks(stream(count), 12, TOKENIZER), masking, shuffle_seed)


def test_no_token_is_lost() -> None:
    """The last block is padded; a separator stands at both ends of each."""
    blocks = Blocks(stream(23), 12, TOKENIZER)
    ids_BN = blocks.read(range(len(blocks)))
    assert ids_BN.shape == (3, 12)
    assert (ids_BN[:, 0] == CLS).all()
    assert ids_BN[2].tolist() == [CLS, 30, 31, 32, SEP, *[PAD] * 7]
    inner = ids_BN[(ids_BN != CLS) & (ids_BN != SEP) & (ids_BN != PAD)]
    assert inner.tolist() == list(range(10, 33))


def test_tokens_come_back_under_the_labels() -> None:
    blocks = masked()
    batch = {name: value.numpy() for name, value in blocks.__getitems__([0, 1, 12]).items()}
    whole = batch["input_ids"].copy()
    for row, places, labels in zip(whole, batch["places"], batch["labels"], strict=True):
        row[places[labels != IGNORED]] = labels[labels != IGNORED]
    order = np.random.default_rng((0, 0)).permutation(10)
    second = np.random.default_rng((0, 1)).permutation(10)
    assert (whole == blocks.blocks.read([order[0], order[1], second[2]])).all()
    assert (batch["attention_mask"] == (whole != PAD)).all()


def test_an_epoch_has_every_block_once_and_the_next_another_order() -> None:
    blocks = masked()
    count = len(blocks.blocks)
    firsts = [
        [tuple(blocks.blocks.read([blocks._order(epoch)[place]])[0]) for place in range(count)]
        for epoch in range(2)
    ]
    assert len(set(firsts[0])) == count
    assert set(firsts[0]) == set(firsts[1])
    assert firsts[0] != firsts[1]


def test_held_out_blocks_come_in_their_order() -> None:
    blocks = masked(shuffle_seed=None)
    assert blocks._order(0).tolist() == list(range(len(blocks.blocks)))


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 4), (2, 2), (4, 1)])
def test_a_step_has_the_same_micro_batches_however_it_is_divided(
    world_size: int, accumulate: int
) -> None:
    per_rank = [
        list(StepBatches(3, 5 * accumulate, start=7, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    steps = [
        sorted(
            batch
            for batches in per_rank
            for batch in batches[step * accumulate : (step + 1) * accumulate]
        )
        for step in range(5)
    ]
    assert steps == [
        [list(range(at, at + 3)) for at in range(first, first + 12, 3)]
        for first in range(7, 67, 12)
    ]


def test_resumed_batches_are_the_next_ones() -> None:
    whole = list(StepBatches(4, 10))
    rest = StepBatches(4, 7, start=12, done=3)
    assert list(rest) == whole[3:]
    assert len(rest) == len(whole) == len(StepBatches(4, 10))


def test_lengths_and_corpora_that_make_no_blocks() -> None:
    with pytest.raises(ValueError, match=r"data\.max_length must be 3 or more"):
        Blocks(stream(5), 2, TOKENIZER)
    with pytest.raises(ValueError, match="there are no tokens"):
        Blocks(TokenStream([]), 12, TOKENIZER)
