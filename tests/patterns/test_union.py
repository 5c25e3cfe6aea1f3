from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aaa.patterns import Axis, Full, Global, LayerInput, Local, Pattern, Random, Union, union
from tests import reference
from tests.reference import keep_of, lengths_strategy, mask_cells, padded, site

PARTS = [Full(), Local(0), Local(3), Global(1), Global(2), Random(2), Random(1, reading="text")]
sizes = st.integers(1, 12)


@given(
    lengths=lengths_strategy, size=st.integers(0, 6), first=st.integers(1, 6), left=st.booleans()
)
def test_local_or_global_cells(lengths: list[int], size: int, first: int, left: bool) -> None:
    keep_BN = keep_of(lengths, left)
    own = [
        reference.union(reference.local(length, size), reference.global_(length, first))
        for length in lengths
    ]
    mask = (Local(size) | Global(first))(LayerInput(keep_BN))
    np.testing.assert_array_equal(mask.dense()[:, 0].numpy(), padded(own, keep_BN))
    assert mask.sparsity().mean().item() == pytest.approx(reference.rho(own), abs=1e-6)


@given(length=st.integers(1, 700), size=st.integers(0, 12), first=sizes)
def test_closed_form(length: int, size: int, first: int) -> None:
    total = size + first
    mask = (Local(size) | Global(first))(LayerInput(keep_of([length])))
    if length > total:
        expected = (2 * total + 1) * length - total * (total + 1)
        rho = 1 - (2 * total + 1) / length + total * (total + 1) / length**2
    else:
        expected, rho = length**2, 0
    assert mask.kept_cells().item() == expected
    assert mask.sparsity().item() == pytest.approx(rho, abs=1e-6)


@given(length=st.integers(11, 700))
def test_figure_2_compares_equals(length: int) -> None:
    inputs = LayerInput(keep_of([length]))
    for pattern in (Local(8) | Global(2), Local(2) | Global(8)):
        assert pattern(inputs).kept_cells().item() == 21 * length - 110


# facts.md, D: the one length that reproduces each rho that Table 4 reports, in percent.
@pytest.mark.parametrize(("length", "rho"), [(35, 76), (28, 70), (48, 82), (51, 83), (54, 84)])
@pytest.mark.parametrize("pattern", [Local(2) | Global(2), Local(3) | Global(1)], ids=str)
def test_table_4(pattern: Pattern, length: int, rho: int) -> None:
    assert round(100 * pattern(LayerInput(keep_of([length]))).sparsity().item()) == rho


@given(
    lengths=lengths_strategy,
    three=st.lists(st.sampled_from(PARTS), min_size=3, max_size=3),
    left=st.booleans(),
)
def test_or_is_commutative_associative_idempotent(
    lengths: list[int], three: list[Pattern], left: bool
) -> None:
    keep_BN = keep_of(lengths, left)
    a, b, c = three
    expected = reference.union(*(mask_cells(part, keep_BN) for part in three))
    for pattern in (a | b | c, c | b | a, a | (b | c), a | b | c | a | b, Union(a, b, c)):
        np.testing.assert_array_equal(mask_cells(pattern, keep_BN), expected)
        kept_BH = pattern(LayerInput(keep_BN)).kept_cells()
        np.testing.assert_array_equal(kept_BH[:, 0].numpy(), expected.sum((-2, -1)))


def test_bind_binds_each_part_apart() -> None:
    template = Axis() | Random(1)
    first, second = (template.bind(site(layer)) for layer in (0, 1))
    assert len(list(template.parameters())) == 0
    assert len(list(first.parameters())) == 4
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not shared
    assert isinstance(second, Union)
    assert [getattr(part, "layer", None) for part in second] == [None, 1]


def test_closed() -> None:
    floor = (Axis() | Local(2)).closed()
    assert not floor.learnable
    keep_BN = keep_of([9])
    np.testing.assert_array_equal(mask_cells(floor, keep_BN), mask_cells(Local(2), keep_BN))
    fixed = Local(1) | Global(1)
    assert fixed.closed() is fixed


def test_nested_unions_are_flat_and_named() -> None:
    pattern = Local(1) | (Global(1) | Random(2))
    assert len(list(pattern)) == 3
    assert str(pattern) == "Local(1) | Global(1) | Random(2)"
    assert str(union(local=Local(1), other=Global(2))) == "Local(1) | Global(2)"


@pytest.mark.parametrize("parts", [(), (Local(1), 2), (torch.nn.Linear(1, 1),)])
def test_union_of_no_or_of_other_things_is_refused(parts: tuple) -> None:
    with pytest.raises(ValueError, match="Union"):
        Union(*parts)


def test_or_with_a_number() -> None:
    with pytest.raises(TypeError):
        Local(1) | 2  # type: ignore[operator]
