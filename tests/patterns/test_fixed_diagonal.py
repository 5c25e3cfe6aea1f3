from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model

from aaa import Axis, Diagonal, FixedDiagonal, Global, InLayers, Local, gate_parameters, sparsify
from aaa.masks import SparseMask
from aaa.objective import sparsity_of_lengths
from aaa.patterns import LayerInput, LayerSite
from aaa.sparse import latest_masks
from tests import reference
from tests.conftest import EncoderFactory
from tests.reference import keep_of, lengths_strategy, padded

Batch = dict[str, torch.Tensor]


@pytest.fixture
def trained(make_encoder: EncoderFactory, batch: Batch, tmp_path: Path) -> Any:
    """Makes an encoder whose random diagonals saw texts of 12 tokens, and saves it."""

    def make(pattern: Any, family: str = "Bert", layers: int = 2) -> tuple[Any, Path]:
        model = sparsify(make_encoder(family, num_hidden_layers=layers), pattern)
        for gate in gate_parameters(model):
            gate.data.normal_()
        model.train()(**batch)
        folder = tmp_path / "source"
        folder.mkdir()
        save_model(model, str(folder / "model.safetensors"))
        return model.eval(), folder

    return make


def cells(model: Any) -> list[torch.Tensor]:
    """Each layer's map with a head axis of 2."""
    return [mask.dense().expand(-1, 2, -1, -1) for mask in latest_masks(model)]


@given(lengths=lengths_strategy, opened=st.sets(st.integers(1, 30)), left=st.booleans())
def test_cells(lengths: list[int], opened: set[int], left: bool) -> None:
    keep_BN = keep_of(lengths, left)
    pattern = FixedDiagonal(distances=[[sorted(opened)]]).bind(LayerSite(1, 4, 8, 2))
    mask: SparseMask = pattern(LayerInput(keep_BN))
    maps = [
        reference.cells_where(length, lambda i, j: i == j or abs(i - j) in opened)
        for length in lengths
    ]
    np.testing.assert_array_equal(mask.dense()[:, 0].numpy(), padded(maps, keep_BN))
    assert not list(pattern.parameters())
    assert not pattern.state_dict()
    assert not pattern.learnable
    assert pattern.closed() is pattern


@pytest.mark.parametrize("scope", ["task", "layer", "head"])
def test_has_the_masks_of_its_source(
    make_encoder: EncoderFactory, trained: Any, family: str, scope: Any, batch: Batch
) -> None:
    source, folder = trained(Diagonal(scope, 30) | Global(1), family)
    source(**batch)
    copied = sparsify(make_encoder(family), FixedDiagonal(str(folder)) | Global(1))
    assert not gate_parameters(copied)
    for training in (True, False):
        copied.train(training)(**batch)
        for own, other in zip(cells(copied), cells(source), strict=True):
            assert torch.equal(own, other)


def test_layers_in_the_order_of_their_numbers(
    make_encoder: EncoderFactory, trained: Any, batch: Batch
) -> None:
    """Layer 10 comes after layer 2."""
    source, folder = trained(Diagonal("layer", 30), layers=11)
    source(**batch)
    copied = sparsify(make_encoder(num_hidden_layers=11), FixedDiagonal(str(folder)))
    copied(**batch)
    assert all(torch.equal(a, b) for a, b in zip(cells(copied), cells(source), strict=True))
    assert len({tuple(map_BHNN.flatten().tolist()) for map_BHNN in cells(source)}) == 11


def test_of_some_layers(make_encoder: EncoderFactory, trained: Any, batch: Batch) -> None:
    source, folder = trained(InLayers(Diagonal("layer", 30), "1-", Local(1)), layers=3)
    source(**batch)
    fixed = InLayers(FixedDiagonal(str(folder)), "1-", Local(1))
    copied = sparsify(make_encoder(num_hidden_layers=3), fixed)
    copied(**batch)
    assert all(torch.equal(a, b) for a, b in zip(cells(copied), cells(source), strict=True))
    with pytest.raises(ValueError, match="diagonals in layers 1,2, this encoder has 3 layers and"):
        sparsify(make_encoder(num_hidden_layers=3), FixedDiagonal(str(folder)))


def test_distances_that_the_source_never_saw_stay_closed_and_are_counted(
    make_encoder: EncoderFactory, trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    source, folder = trained(Diagonal("task", 30))
    gate_parameters(source)[0].data.fill_(1.0)
    save_model(source, str(folder / "model.safetensors"))
    with caplog.at_level(logging.INFO, "aaa"):
        sparsify(make_encoder(), FixedDiagonal(str(folder)))
    assert caplog.messages == [
        f"FixedDiagonal(11 open distances in 1 sets) from {folder}; 19 of its 30 distances were "
        "not seen in its training and stay closed"
    ]
    ids = {"input_ids": torch.arange(5, 25).unsqueeze(0)}
    copied = sparsify(make_encoder(), FixedDiagonal(str(folder)))
    copied(**ids)
    expected = torch.from_numpy(reference.cells_where(20, lambda i, j: abs(i - j) <= 11))
    assert torch.equal(cells(copied)[0][0, 0].double(), expected)


def test_places(make_encoder: EncoderFactory, trained: Any, tmp_path: Path) -> None:
    """The folder, a run's directory with its folder ``model``, and the file itself."""
    _, folder = trained(Diagonal("head", 30))
    run = tmp_path / "run" / "model"
    run.parent.mkdir()
    folder.rename(run)
    expected = FixedDiagonal(str(run)).distances
    for place in (run.parent, run / "model.safetensors"):
        pattern = FixedDiagonal(str(place))
        assert pattern.distances == expected
        assert pattern.fingerprint() == expected
        assert FixedDiagonal(distances=expected).fingerprint() == expected
    assert (Local(1) | FixedDiagonal(str(run))).fingerprint() == [None, expected]
    assert InLayers(FixedDiagonal(str(run)), "0").fingerprint() == [expected, None]
    assert (Local(1) | Axis()).fingerprint() is None


def test_rho_follows_from_lengths() -> None:
    pattern = FixedDiagonal(distances=[[[1], [2]], [[], [1, 2, 3]]])
    kept = [[10 + 18, 10 + 16], [10, 10 + 18 + 16 + 14]]
    expected = np.mean([1 - cells / 100 for layer in kept for cells in layer])
    assert sparsity_of_lengths(pattern, [10], 2) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("layers", "heads", "said"),
    [
        (4, 2, "diagonals in layers 0,1,2, this encoder has 4 layers and wants them in layer 3"),
        (2, 2, "diagonals in layers 0,1,2, this encoder has 2 layers"),
        (3, 4, "diagonals for 2 heads, this encoder has 4"),
    ],
)
def test_another_shape(
    make_encoder: EncoderFactory, trained: Any, layers: int, heads: int, said: str
) -> None:
    _, folder = trained(Diagonal("head", 30), layers=3)
    model = make_encoder(num_hidden_layers=layers, num_attention_heads=heads)
    with pytest.raises(ValueError, match=said):
        sparsify(model, FixedDiagonal(str(folder)))


def test_wrong_sources(make_encoder: EncoderFactory, trained: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weights in '/no/such/run'"):
        FixedDiagonal("/no/such/run")
    _, folder = trained(Axis())
    with pytest.raises(ValueError, match="has no diagonals"):
        FixedDiagonal(str(folder))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        FixedDiagonal(str(broken))
    name = "bert.encoder.layer.1.attention.self.sparse.pattern.patterns.{}.distance_weights_HK"
    save_file({name.format(part): torch.ones(1, 3) for part in (0, 1)}, str(broken))
    with pytest.raises(ValueError, match="one set of diagonals a layer"):
        FixedDiagonal(str(broken))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "one of the two"),
        ({"source": "x", "distances": [[[1]]]}, "one of the two"),
        ({"distances": [None]}, "whole numbers from 1"),
        ({"distances": [[[0]]]}, "whole numbers from 1"),
        ({"distances": 3}, "whole numbers from 1"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FixedDiagonal(**wrong)
