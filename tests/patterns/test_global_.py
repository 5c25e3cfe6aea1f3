from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aaa.patterns import Global, LayerInput
from tests import reference
from tests.reference import keep_of, lengths_strategy, mask_cells, padded


@given(lengths=lengths_strategy, size=st.integers(1, 30), left=st.booleans())
def test_cells(lengths: list[int], size: int, left: bool) -> None:
    keep_BN = keep_of(lengths, left, extra=2)
    expected = padded([reference.global_(length, size) for length in lengths], keep_BN)
    np.testing.assert_array_equal(mask_cells(Global(size), keep_BN), expected)


@given(length=st.integers(1, 600), size=st.integers(1, 40))
def test_closed_form(length: int, size: int) -> None:
    kept = Global(size)(LayerInput(keep_of([length]))).kept_cells().item()
    assert kept == length**2 - max(0, length - size) ** 2


@pytest.mark.parametrize("size", [0, -1])
def test_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        Global(size)
