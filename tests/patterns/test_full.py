from __future__ import annotations

import numpy as np
from hypothesis import given

from aaa.patterns import Full, LayerInput
from tests.reference import keep_of, lengths_strategy, mask_cells, padded


@given(lengths=lengths_strategy)
def test_all_real_cells_are_open(lengths: list[int]) -> None:
    keep_BN = keep_of(lengths, extra=1)
    expected = padded([np.ones((length, length)) for length in lengths], keep_BN)
    np.testing.assert_array_equal(mask_cells(Full(), keep_BN), expected)
    assert Full()(LayerInput(keep_BN)).sparsity().tolist() == [0] * len(lengths)


def test_has_no_gates() -> None:
    assert not Full().learnable
    assert Full().closed().learnable is False
