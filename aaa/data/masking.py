"""Masked language modelling: which tokens are hidden, and behind what (Devlin et al., 2019).

Shape suffixes: B blocks, N tokens, K places that are predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the hidden tokens; the rest stays as it is
IGNORED = -100  # the label of a place that is not predicted, as in PyTorch and transformers

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Masking:
    """Hides a share of the tokens of each block, as BERT does: the rounded share, one at least.

    Which tokens, and what stands in their place, is a function of the seed and of the number under
    which a block is drawn, so it is new in every epoch and the same however blocks are divided
    among batches and processes, and whenever training is resumed.

    Args:
        share: of the tokens that are hidden, special ones not counted.
        vocab_size: random tokens are drawn from the whole vocabulary.
        mask_id: of [MASK].
        special_ids: of tokens that are never hidden.
        seed: of the choice.

    Raises:
        ValueError: if the share is not between 0 and 1.
    """

    share: float
    vocab_size: int
    mask_id: int
    special_ids: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"training.masked must be a share between 0 and 1, not {self.share}")

    def __call__(
        self, ids_BN: np.ndarray, numbers_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hides tokens of blocks that are drawn under these numbers.

        Returns:
            The block with tokens hidden, (B, N); the places that are to be predicted, (B, K) in
            ascending order; and the tokens that stood there, (B, K), ``IGNORED`` beyond the
            number that a block has. K depends on N alone.
        """
        hidable_BN = ~np.isin(ids_BN, self.special_ids)
        lots_BN = np.where(hidable_BN, self._bits(numbers_B, ids_BN.shape[1], 0), _TOP)
        num_places = self.num_places(ids_BN.shape[1])
        lowest_BK = np.argpartition(lots_BN, num_places - 1, axis=1)[:, :num_places]
        ranks_BK = np.argsort(np.take_along_axis(lots_BN, lowest_BK, 1), axis=1)
        chosen_BK = np.take_along_axis(lowest_BK, ranks_BK, 1)
        hidable_B = hidable_BN.sum(1)
        count_B = np.where(
            hidable_B > 0, np.clip(np.rint(self.share * hidable_B), 1, num_places), 0
        )
        chosen_BK = np.where(np.arange(num_places) < count_B[:, None], chosen_BK, ids_BN.shape[1])
        places_BK = np.sort(chosen_BK, axis=1)
        real_BK = places_BK < ids_BN.shape[1]
        places_BK = np.where(real_BK, places_BK, 0)
        labels_BK = np.where(real_BK, np.take_along_axis(ids_BN, places_BK, 1), IGNORED)
        return self._hidden(ids_BN, places_BK, real_BK, numbers_B), places_BK, labels_BK

    def num_places(self, length: int) -> int:
        """K of a block of N tokens, of which the first and the last are special ones."""
        return max(1, round(self.share * (length - 2)))

    def _hidden(
        self, ids_BN: np.ndarray, places_BK: np.ndarray, real_BK: np.ndarray, numbers_B: np.ndarray
    ) -> np.ndarray:
        lots_BK = self._uniform(numbers_B, places_BK.shape[1], 1)
        random_BK = (self._uniform(numbers_B, places_BK.shape[1], 2) * self.vocab_size).astype(
            ids_BN.dtype
        )
        own_BK = np.take_along_axis(ids_BN, places_BK, 1)
        behind_BK = np.where(lots_BK < MASK_SHARE + RANDOM_SHARE, random_BK, own_BK)
        behind_BK = np.where(lots_BK < MASK_SHARE, self.mask_id, behind_BK)
        inputs_BN = ids_BN.copy()
        block_BK = np.broadcast_to(np.arange(len(ids_BN))[:, None], places_BK.shape)
        inputs_BN[block_BK[real_BK], places_BK[real_BK]] = behind_BK[real_BK]
        return inputs_BN

    def _uniform(self, numbers_B: np.ndarray, width: int, stream: int) -> np.ndarray:
        return (self._bits(numbers_B, width, stream) >> np.uint64(11)) * 2.0**-53

    def _bits(self, numbers_B: np.ndarray, width: int, stream: int) -> np.ndarray:
        """Random 64-bit numbers, (B, width): a counter through SplitMix64's finisher, twice."""
        with np.errstate(over="ignore"):
            key = _mixed(np.array([self.seed * 4 + stream], np.uint64) + _GOLDEN)
            rows_B1 = _mixed(numbers_B.astype(np.uint64) * _GOLDEN + key)[:, None]
            return _mixed(rows_B1 + np.arange(1, width + 1, dtype=np.uint64) * _GOLDEN)


_TOP = np.uint64(2**64 - 1)


def _mixed(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
