"""Batches of like lengths, for training and for evaluation, and their padding.

Little padding is most of what there is to gain on short texts: see ``padding_share`` in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

# So many batches are drawn together and sorted by length among themselves. More would leave less
# padding and less chance; Hugging Face's LengthGroupedSampler takes 50 as well.
MEGABATCH = 50


def batches_per_epoch(n: int, global_batch_size: int) -> int:
    """Optimiser-sized batches in one pass over ``n`` examples, a last smaller one counted."""
    return -(-n // global_batch_size)


class TrainBatches(Sampler[list[int]]):
    """Training batches of a whole run: shuffled, of like lengths, the same however they are run.

    Every epoch is a fresh permutation. It is cut into stretches of ``MEGABATCH`` batches, each
    stretch is sorted by length and cut into batches, and the epoch's batches are shuffled. If
    the examples do not come out even, the epoch's last batch is smaller; its examples are drawn
    at random, not left over from the sorting.

    A *global* batch, of ``batch_size * world_size`` examples, depends on the seed, the epoch and
    its size alone, and each rank takes every ``world_size``-th example of it: 2 processes with
    batches of 16 train on what 1 process with batches of 32 trains on. Only a last, smaller batch
    may differ: it is filled from the epoch's beginning until all ranks have equally many.

    Args:
        lengths: Length of every example of the dataset, in tokens.
        batch_size: Examples per batch and process.
        num_batches: Batches in the whole run, over as many epochs as that takes.
        seed: Of the shuffling, 0 or more.
        start: First batch to yield: how many were done before, when a run is resumed.
        rank: This process, from 0.
        world_size: Number of processes.

    Raises:
        ValueError: If there are no examples or an argument is out of range.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        num_batches: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths = _checked(lengths, batch_size, rank, world_size)
        if num_batches < 1:
            raise ValueError(f"num_batches must be 1 or more, not {num_batches}")
        if not 0 <= start <= num_batches:
            raise ValueError(f"start must be 0 to num_batches ({num_batches}), not {start}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        self.global_batch_size = batch_size * world_size
        self.num_batches = num_batches
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches in the whole run, those before ``start`` counted."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's batches from ``start`` on."""
        per_epoch = batches_per_epoch(len(self.lengths), self.global_batch_size)
        position = self.start
        while position < self.num_batches:
            epoch, first = divmod(position, per_epoch)
            for batch in self._epoch(epoch)[first : first + self.num_batches - position]:
                yield batch[self.rank :: self.world_size].tolist()
                position += 1

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """The global batches of an epoch, in order."""
        size = self.global_batch_size
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.lengths))
        even, rest = np.split(order, [len(order) - len(order) % size])
        stretches = [
            part[np.argsort(-self.lengths[part], kind="stable")]
            for part in np.split(even, range(MEGABATCH * size, len(even), MEGABATCH * size))
        ]
        batches = list(random.permutation(np.concatenate(stretches).reshape(-1, size)))
        if len(rest):
            lacking = -len(rest) % self.world_size
            batches.append(np.concatenate([rest, np.resize(order, lacking)]))
        return batches


class EvalBatches(Sampler[list[int]]):
    """Batches for evaluation: sorted by length, every example exactly once over all ranks.

    Ranks take turns along the sorted examples, so their work is alike and the numbers of their
    examples differ by one at most: a score reduced over ranks is exact, nothing is counted twice.

    Args:
        lengths: Length of every example of the dataset, in tokens.
        batch_size: Examples per batch and process.
        rank: This process, from 0.
        world_size: Number of processes.

    Raises:
        ValueError: If there are no examples or an argument is out of range.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        lengths = _checked(lengths, batch_size, rank, world_size)
        # The longest come first: if memory does not suffice, that shows at once.
        mine = np.argsort(-lengths, kind="stable")[rank::world_size].tolist()
        self.batches = [mine[at : at + batch_size] for at in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's batches, the longest examples first."""
        return iter(self.batches)


class Collate:
    """Rows of :func:`aaa.data.encode.encode` to a batch, padded to its longest row.

    The result is that of ``tokenizer.pad``, in less than a tenth of its time, and ``labels``.

    Args:
        tokenizer: Says what to pad with and on which side.
        regression: Whether labels are scores rather than class numbers.

    Raises:
        ValueError: If the tokenizer has no padding token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, regression: bool) -> None:
        if tokenizer.pad_token_id is None:
            raise ValueError(f"the tokenizer of {tokenizer.name_or_path} has no padding token")
        self.pad = {
            "input_ids": tokenizer.pad_token_id,
            "token_type_ids": tokenizer.pad_token_type_id,
            "syntax_heads": -1,
        }
        self.left = tokenizer.padding_side == "left"
        self.label_type = torch.float32 if regression else torch.int64

    def __call__(self, rows: Sequence[Mapping]) -> dict[str, Tensor]:
        """Make a batch.

        Returns:
            ``input_ids``, ``attention_mask`` (1 for tokens, 0 for padding) and, if the rows have
            them, ``token_type_ids`` and ``syntax_heads`` (-1 for padding): int64 of shape (B, N);
            ``labels`` of shape (B,): float32 for regression, else int64.
        """
        # In numpy: torch takes five times as long to read Python's numbers.
        lengths_B = np.array([len(row["input_ids"]) for row in rows])
        place_N = np.arange(lengths_B.max())
        keep_BN = (place_N[::-1] if self.left else place_N) < lengths_B[:, None]
        batch = {"attention_mask": torch.from_numpy(keep_BN.astype(np.int64))}
        for name, pad in self.pad.items():
            if name in rows[0]:
                padded_BN = np.full(keep_BN.shape, pad, np.int64)
                padded_BN[keep_BN] = list(chain.from_iterable(row[name] for row in rows))
                batch[name] = torch.from_numpy(padded_BN)
        batch["labels"] = torch.tensor([row["label"] for row in rows], dtype=self.label_type)
        return batch


def _checked(
    lengths: Sequence[int] | np.ndarray, batch_size: int, rank: int, world_size: int
) -> np.ndarray:
    """The lengths as an array, once the arguments are known to be sound."""
    if len(lengths) == 0:
        raise ValueError("there are no examples to make batches of")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to world_size - 1 ({world_size - 1}), not {rank}")
    # A column of ``datasets`` reads itself row by row unless it is sliced.
    return np.asarray(lengths[:], dtype=np.int64)
