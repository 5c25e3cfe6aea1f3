from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from aaa import Axis, Full, Global, InLayers, Local, Pattern, gate_parameters, sparsify, sparsity
from aaa.objective import sparsity_of_lengths
from aaa.patterns import LayerSite, Random
from aaa.sparse import latest_masks
from tests import reference
from tests.conftest import EncoderFactory

Batch = dict[str, torch.Tensor]


def inside(layers: Any, num_layers: int) -> list[int]:
    pattern = InLayers(Local(1), layers)
    bound = [pattern.bind(LayerSite(layer, num_layers, 8, 2)) for layer in range(num_layers)]
    assert all(isinstance(part, Local | Full) for part in bound)
    return [layer for layer, part in enumerate(bound) if isinstance(part, Local)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("6-11", [6, 7, 8, 9, 10, 11]),
        ("6-", [6, 7, 8, 9, 10, 11]),
        ("0,2,4", [0, 2, 4]),
        ("0-1, 10-", [0, 1, 10, 11]),
        ("3", [3]),
        (3, [3]),
        (0, [0]),
        ([0, 2, 4], [0, 2, 4]),
        ("0-11", list(range(12))),
    ],
)
def test_ranges(layers: Any, expected: list[int]) -> None:
    assert inside(layers, 12) == expected


@pytest.mark.parametrize("layers", ["12", "6-12", "12-", 12, [0, 12]])
def test_layers_that_the_encoder_has_not(make_encoder: EncoderFactory, layers: Any) -> None:
    with pytest.raises(ValueError, match="12 layers, counted from 0 to 11"):
        sparsify(make_encoder(num_hidden_layers=12), InLayers(Local(1), layers))


@pytest.mark.parametrize("layers", ["", "last", "-3", "1--2", "1;2", [], ["a"], -1, [-1], 1.5])
def test_no_layers(layers: Any) -> None:
    with pytest.raises(ValueError, match="numbers from 0, such as 6-11"):
        InLayers(Local(1), layers)


@pytest.mark.parametrize("layers", ["11-6", "0, 11-6", ["11-6"]])
def test_a_range_that_ends_before_it_begins(layers: Any) -> None:
    with pytest.raises(ValueError, match=r"layers .*11-6: a range goes from .* higher, 6-11"):
        InLayers(Local(1), layers)


@pytest.mark.parametrize(
    ("inside", "elsewhere", "said"),
    [(2, None, "2"), (Local(1), "full", "'full'"), (Local, None, "<class"), (None, None, "None")],
)
def test_parts_that_are_no_patterns(inside: Any, elsewhere: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"InLayers takes patterns, not {said}"):
        InLayers(inside, "0", elsewhere)


def other_map(elsewhere: Pattern | None, length: int) -> np.ndarray:
    if elsewhere is None:
        return reference.axis(length, range(length), ())
    return reference.union(reference.local(length, 2), reference.global_(length, 1))


@pytest.mark.parametrize("elsewhere", [None, Local(2) | Global(1)], ids=str)
def test_masks_and_rho_over_all_layers(
    make_encoder: EncoderFactory, elsewhere: Pattern | None, batch: Batch
) -> None:
    model = sparsify(make_encoder(num_hidden_layers=3), InLayers(Local(1), "1-", elsewhere))
    model(**batch)
    expected = []
    for length in (12, 9, 5, 1):
        inner, outer = reference.rho([reference.local(length, 1)]), other_map(elsewhere, length)
        expected += [reference.rho([outer]), inner, inner]
    mean = sum(expected) / len(expected)
    assert sparsity(model).item() == pytest.approx(mean, abs=1e-6)
    pattern = InLayers(Local(1), "1-", elsewhere)
    assert sparsity_of_lengths(pattern, [12, 9, 5, 1], 3) == pytest.approx(mean, abs=1e-6)
    first, second, _ = (mask.dense()[0, 0].numpy() for mask in latest_masks(model))
    np.testing.assert_array_equal(first, other_map(elsewhere, 12))
    np.testing.assert_array_equal(second, reference.local(12, 1))


def test_what_is_learned() -> None:
    fixed = InLayers(Local(2), "3-5")
    assert not fixed.learnable
    assert fixed.closed() is fixed
    for learned in (InLayers(Axis() | Local(2), "3-5"), InLayers(Local(2), "3-5", Axis())):
        assert learned.learnable
        assert not learned.closed().learnable
    floor = sparsity_of_lengths(InLayers(Axis() | Local(2), "1").closed(), [20], 2)
    assert floor == pytest.approx(reference.rho([reference.local(20, 2)]) / 2, abs=1e-6)


def test_gates_in_those_layers_only(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder(num_hidden_layers=3), InLayers(Axis(), "2") | Local(1))
    assert len(gate_parameters(model)) == 4
    assert all(".2." in name for name in model.state_dict() if "sparse" in name)


def test_patterns_know_their_layer() -> None:
    bound = InLayers(Random(1), "1-").bind(LayerSite(3, 4, 8, 2))
    assert isinstance(bound, Random)
    assert bound.layer == 3


def test_layers_that_share_a_self_attention(make_encoder: EncoderFactory, batch: Batch) -> None:
    with pytest.raises(ValueError, match="layers 0 to 2 of this encoder share"):
        sparsify(make_encoder("Albert", num_hidden_layers=3), InLayers(Local(1), "1-"))
    model = sparsify(make_encoder("Albert", num_hidden_layers=3), InLayers(Local(1), "0-"))
    model(**batch)
    assert [mask.sparsity().mean() > 0 for mask in latest_masks(model)] == [True] * 3


def test_written() -> None:
    pattern = InLayers(Local(2) | Global(1), [0, 2], Local(1))
    assert str(pattern) == "(Local(2) | Global(1)) in layers 0,2, Local(1) elsewhere"
