"""Blocks of equal length, cut from a row of tokens, for masked language modelling.

Shape suffixes: B blocks, N tokens, K places that are predicted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from aaa.data.masking import Masking
from aaa.data.packing import TokenStream


class Blocks:
    """``[CLS] tokens [SEP]``, each ``length`` long, that share out a row of tokens without rest.

    Documents follow each other within a block, with [SEP] between them, and go on in the next one
    (as in RoBERTa's pre-training): tokens attend across that [SEP], under any pattern. The last
    block is padded.

    Args:
        stream: the tokens.
        length: N, the special tokens at both ends counted.
        tokenizer: has [CLS], [SEP] and [PAD].

    Raises:
        ValueError: if a block would hold no tokens, or there are none.
    """

    def __init__(
        self, stream: TokenStream, length: int, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        if length < 3:
            raise ValueError(f"data.max_length must be 3 or more, not {length}")
        if not len(stream):
            raise ValueError("there are no tokens to make blocks of: all documents are empty")
        self.stream, self.length = stream, length
        self.ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        self.pad = tokenizer.pad_token_id

    def __len__(self) -> int:
        return -(-len(self.stream) // (self.length - 2))

    def read(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """The blocks of these numbers, int64 of shape (B, N)."""
        width = self.length - 2
        rows = [self.stream.read(int(n) * width, (int(n) + 1) * width) for n in numbers]
        return framed(rows, self.length, (*self.ends, self.pad))


def framed(rows: Sequence[np.ndarray], length: int, ends: tuple[int, int, int]) -> np.ndarray:
    """``[CLS] tokens [SEP]`` and padding, int64 of shape (B, N); ``ends`` are the three's ids."""
    first, last, pad = ends
    ids_BN = np.full((len(rows), length), pad, np.int64)
    ids_BN[:, 0] = first
    for ids_N, tokens in zip(ids_BN, rows, strict=True):
        ids_N[1 : len(tokens) + 1] = tokens
        ids_N[len(tokens) + 1] = last
    return ids_BN


def as_batch(
    ids_BN: np.ndarray, masking: Masking, numbers: Sequence[int], pad: int
) -> dict[str, Tensor]:
    """A batch of blocks that are drawn under these numbers.

    Returns:
        ``input_ids``, ``attention_mask`` (1 for tokens, 0 for padding) of shape (B, N), and
        ``places`` and ``labels`` of shape (B, K) as ``Masking`` makes them; all int64. And
        ``number``, the first one.
    """
    keep_BN = ids_BN != pad
    inputs_BN, places_BK, labels_BK = masking(ids_BN, np.asarray(numbers))
    return {
        "input_ids": torch.from_numpy(inputs_BN),
        "attention_mask": torch.from_numpy(keep_BN.astype(np.int64)),
        "places": torch.from_numpy(places_BK),
        "labels": torch.from_numpy(labels_BK),
        "number": torch.tensor(numbers[0]),
    }


class MaskedBlocks(Dataset):
    """Batches of blocks with tokens hidden, by number, for a whole training.

    Number p stands for place p of an endless row of epochs, each a permutation of its own.

    Args:
        blocks: what is drawn from.
        masking: what hides tokens; it sees the same numbers.
        shuffle_seed: of the permutations; None for the blocks in their order.
    """

    def __init__(self, blocks: Blocks, masking: Masking, shuffle_seed: int | None) -> None:
        self.blocks, self.masking, self.shuffle_seed = blocks, masking, shuffle_seed
        self._order = lru_cache(maxsize=2)(self._permutation)  # a batch may span two epochs

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_order"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __getitems__(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """A batch, as ``as_batch`` makes it."""
        drawn = [divmod(number, len(self.blocks)) for number in numbers]
        ids_BN = self.blocks.read([self._order(epoch)[place] for epoch, place in drawn])
        return as_batch(ids_BN, self.masking, numbers, self.blocks.pad)

    def _permutation(self, epoch: int) -> np.ndarray:
        if self.shuffle_seed is None:
            return np.arange(len(self.blocks))
        return np.random.default_rng((self.shuffle_seed, epoch)).permutation(len(self.blocks))


class StepBatches(Sampler[list[int]]):
    """The numbers of a rank's micro-batches, from any number on.

    A step takes the next ``batch_size * accumulate * world_size`` numbers, and each rank an equal
    share of its micro-batches: how a step is divided among ranks and micro-steps changes neither
    what it is made of nor any micro-batch.

    Args:
        batch_size: numbers in a micro-batch.
        num_batches: micro-batches of this rank until the end.
        start: the first number: how many examples training has seen.
        rank: this process, from 0.
        world_size: number of processes.
        done: micro-batches of this rank before ``start``; they count in the length alone.
    """

    def __init__(
        self,
        batch_size: int,
        num_batches: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        done: int = 0,
    ) -> None:
        assert batch_size >= 1
        assert 0 <= rank < world_size
        self.batch_size, self.num_batches, self.start = batch_size, num_batches, start
        self.rank, self.world_size, self.done = rank, world_size, done

    def __len__(self) -> int:
        """Micro-batches of the whole run, those done before counted."""
        return self.done + self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        """From ``start`` on."""
        for batch in range(self.num_batches):
            first = self.start + (batch * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))
