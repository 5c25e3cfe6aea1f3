"""Hidden tokens: how many, which, behind what, and that none of it depends on batches."""

from __future__ import annotations

import numpy as np
import pytest

from aaa.data.masking import IGNORED, Masking

PAD, CLS, SEP, MASK = 0, 2, 3, 4
VOCABULARY = 1000


def masking(share: float = 0.15, seed: int = 0) -> Masking:
    return Masking(share, VOCABULARY, MASK, (PAD, CLS, SEP), seed)


def blocks(count: int, length: int = 128) -> np.ndarray:
    ids_BN = np.random.default_rng(0).integers(5, VOCABULARY, (count, length))
    ids_BN[:, 0], ids_BN[:, -1] = CLS, SEP
    return ids_BN


def test_fifteen_percent_are_hidden_and_labels_are_what_stood_there() -> None:
    ids_BN = blocks(50)
    inputs_BN, places_BK, labels_BK = masking()(ids_BN, np.arange(50))
    assert places_BK.shape == labels_BK.shape == (50, 19)  # 0.15 x 126
    assert (labels_BK == np.take_along_axis(ids_BN, places_BK, 1)).all()
    elsewhere = np.ones_like(ids_BN, bool)
    np.put_along_axis(elsewhere, places_BK, False, 1)
    assert (inputs_BN == ids_BN)[elsewhere].all()
    assert (np.diff(places_BK) > 0).all()


def test_eighty_ten_ten() -> None:
    """Within four standard deviations of BERT's shares."""
    ids_BN = blocks(4000)
    inputs_BN, places_BK, labels_BK = masking()(ids_BN, np.arange(4000))
    behind_BK = np.take_along_axis(inputs_BN, places_BK, 1)
    count = places_BK.size
    masked, same = (behind_BK == MASK).mean(), (behind_BK == labels_BK).mean()
    other = 1 - masked - same
    for share, expected in ((masked, 0.8), (same, 0.1), (other, 0.1)):
        # A thousandth of the random tokens happens to be the right one.
        assert share == pytest.approx(expected, abs=4 * (0.16 / count) ** 0.5 + 2e-4)
    random = behind_BK[(behind_BK != MASK) & (behind_BK != labels_BK)]
    assert random.min() < 20  # from the whole vocabulary
    assert random.max() > VOCABULARY - 20


def test_every_place_is_hidden_equally_often() -> None:
    _, places_BK, _ = masking()(blocks(4000, 32), np.arange(4000))
    counts = np.bincount(places_BK.ravel(), minlength=32)
    assert counts[0] == counts[-1] == 0  # [CLS] and [SEP]
    expected = 4000 * places_BK.shape[1] / 30
    assert (np.abs(counts[1:-1] - expected) < 5 * expected**0.5).all()


def test_separators_and_padding_are_never_hidden() -> None:
    ids_BN = blocks(3, 32)
    ids_BN[0, 10:] = PAD
    ids_BN[1, 1:] = SEP  # nothing to hide at all
    _, places_BK, labels_BK = masking()(ids_BN, np.arange(3))
    assert (labels_BK[0] != IGNORED).sum() == 1  # 0.15 x 9 rounded
    assert places_BK[0][labels_BK[0] != IGNORED].max() < 10
    assert (labels_BK[1] == IGNORED).all()
    assert (labels_BK[2] != IGNORED).all()


def test_a_block_is_masked_alike_in_every_batch_and_anew_in_every_epoch() -> None:
    ids_BN = blocks(8)
    numbers = np.arange(100, 108)
    whole = masking()(ids_BN, numbers)
    halves = [masking()(ids_BN[rows], numbers[rows]) for rows in (slice(0, 3), slice(3, 8))]
    for all_of_it, *parts in zip(whole, *halves, strict=True):
        assert (all_of_it == np.concatenate(parts)).all()
    assert (masking()(ids_BN, numbers + 8)[1] != whole[1]).any()
    assert (masking(seed=1)(ids_BN, numbers)[1] != whole[1]).any()


def test_a_share_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"training\.masked must be a share between 0 and 1"):
        masking(share=1.0)
