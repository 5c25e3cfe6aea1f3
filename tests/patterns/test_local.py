from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aaa.patterns import LayerInput, Local
from tests import reference
from tests.reference import keep_of, lengths_strategy, mask_cells, padded


@given(lengths=lengths_strategy, size=st.integers(0, 30), left=st.booleans())
def test_cells(lengths: list[int], size: int, left: bool) -> None:
    keep_BN = keep_of(lengths, left, extra=2)
    expected = padded([reference.local(length, size) for length in lengths], keep_BN)
    np.testing.assert_array_equal(mask_cells(Local(size), keep_BN), expected)


@given(length=st.integers(1, 600), size=st.integers(0, 40))
def test_closed_form(length: int, size: int) -> None:
    kept = Local(size)(LayerInput(keep_of([length]))).kept_cells().item()
    reach = min(size, length - 1)  # a text of up to `size` tokens is open altogether
    assert kept == (2 * reach + 1) * length - reach * (reach + 1)
    if length <= size:
        assert kept == length**2


def test_footnote_5() -> None:
    rho = Local(2)(LayerInput(keep_of([40]))).sparsity().item()
    assert rho == pytest.approx(1 - 5 / 40 + 6 / 40**2)


@pytest.mark.parametrize(("total", "radius"), [(0, 0), (1, 0), (2, 1), (7, 3), (512, 256)])
def test_a_total_window_is_that_of_longformer(total: int, radius: int) -> None:
    """``attention_window`` tokens in all, half of them on each side, and the token itself."""
    keep_BN = keep_of([600, 3])
    np.testing.assert_array_equal(
        mask_cells(Local(total, window="total"), keep_BN), mask_cells(Local(radius), keep_BN)
    )


def test_an_unknown_window_is_refused() -> None:
    with pytest.raises(ValueError, match="radius or total, not 'half'"):
        Local(2, window="half")  # type: ignore[arg-type]


def test_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        Local(-1)


def test_str() -> None:
    assert str(Local(2)) == "Local(2)"
    assert str(Local(512, window="total")) == "Local(512, window=total)"
