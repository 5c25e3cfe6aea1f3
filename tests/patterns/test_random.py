from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from aaa.patterns import Global, LayerInput, Local, Random
from aaa.patterns import drawn as drawings
from aaa.patterns.random import Reading
from tests.reference import keep_of, lengths_strategy, mask_cells, padded, site

READINGS: tuple[Reading, ...] = ("measured", "text")
readings = st.sampled_from(READINGS)


def edges(pattern: Random, length: int) -> Tensor:
    """The drawn cells of one text, (E, 2), without the main diagonal that is open besides."""
    edges_BE2 = pattern(LayerInput(keep_of([length]))).edges_BE2
    assert edges_BE2 is not None
    return edges_BE2[0][edges_BE2[0, :, 0] >= 0]


@pytest.mark.parametrize("size", [1, 2, 7, 128])
@pytest.mark.parametrize("length", [128, 256, 384])
def test_measured_is_size_cells_in_each_row_of_128_columns(size: int, length: int) -> None:
    drawn = edges(Random(size), length)
    assert len({tuple(cell) for cell in drawn.tolist()}) == len(drawn) == length**2 * size // 128
    tile_of = drawn[:, 0] * (length // 128) + drawn[:, 1] // 128
    assert (tile_of.bincount() == size).all()


@pytest.mark.parametrize("length", [3, 50, 200])
def test_measured_crops_the_same_map(length: int) -> None:
    wide = edges(Random(5), 256)
    expected = wide[(wide < length).all(-1)].tolist()
    assert sorted(edges(Random(5), length).tolist()) == sorted(expected)


@pytest.mark.parametrize("length", [20, 60, 200])
def test_measured_density(length: int) -> None:
    size, seeds = 3, 200
    drawn = sum(len(edges(Random(size, seed), length)) for seed in range(seeds))
    cells = seeds * length**2
    assert drawn / cells == pytest.approx(size / 128, abs=5 * math.sqrt(size / 128 / cells))


def test_measured_draws_all_columns_alike() -> None:
    counts = sum(edges(Random(4, seed), 128)[:, 1].bincount(minlength=128) for seed in range(50))
    assert isinstance(counts, Tensor)
    mean = 50 * 4.0
    assert ((counts - mean).abs() < 5 * math.sqrt(mean)).all()


# facts.md, D: rho of Local_a + Global_1 + Random_r for one length, the density being r / 128.
@pytest.mark.parametrize(("size", "local"), [(1, 2), (2, 1)])
def test_rho_of_bigbirds_pattern(size: int, local: int) -> None:
    length, total = 50, local + 1
    fixed = (2 * total + 1) / length - total * (total + 1) / length**2
    inputs = LayerInput(keep_of([length]))
    rho = [
        (Local(local) | Global(1) | Random(size, seed))(inputs).sparsity() for seed in range(80)
    ]
    expected = 1 - fixed - (1 - fixed) * size / 128
    assert torch.stack(rho).mean().item() == pytest.approx(expected, abs=0.001)


@given(length=st.integers(1, 150), size=st.integers(1, 20))
def test_text_is_2_n_r_cells(length: int, size: int) -> None:
    drawn = edges(Random(size, reading="text"), length).tolist()
    assert len({tuple(cell) for cell in drawn}) == len(drawn) == min(2 * length * size, length**2)
    assert all(0 <= number < length for cell in drawn for number in cell)


@given(lengths=lengths_strategy, size=st.integers(1, 9), left=st.booleans(), reading=readings)
def test_a_text_has_the_same_cells_in_any_batch(
    lengths: list[int], size: int, left: bool, reading: Reading
) -> None:
    pattern, keep_BN = Random(size, reading=reading), keep_of(lengths, left, extra=3)
    alone = [mask_cells(pattern, keep_of([length]))[0] for length in lengths]
    together = mask_cells(pattern, keep_BN)
    np.testing.assert_array_equal(together, padded(alone, keep_BN))
    kept_BH = pattern(LayerInput(keep_BN)).kept_cells()
    np.testing.assert_array_equal(kept_BH[:, 0].numpy(), together.sum((-2, -1)))


@pytest.mark.parametrize("reading", READINGS)
def test_the_main_diagonal_is_open(reading: Reading) -> None:
    cells = mask_cells(Random(1, reading=reading), keep_of([150]))[0]
    assert (cells.diagonal() == 1).all()


@pytest.mark.parametrize("reading", READINGS)
def test_cells_follow_from_seed_and_layer(reading: Reading) -> None:
    def cells(seed: int, layer: int) -> bytes:
        pattern = Random(2, seed, reading).bind(site(layer))
        return mask_cells(pattern, keep_of([40])).tobytes()

    numbers = [(seed, layer) for seed in range(4) for layer in range(4)]
    assert len({cells(*number) for number in numbers}) == len(numbers)
    state = torch.get_rng_state()
    assert [cells(*number) for number in numbers] == [cells(*number) for number in numbers]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("reading", READINGS)
def test_first_use_in_inference_mode_spoils_nothing(reading: Reading) -> None:
    pattern, inputs = Random(2, seed=99, reading=reading), LayerInput(keep_of([6, 9]))
    with torch.inference_mode():
        pattern(inputs)
    rows = torch.rand(1, 1, 9, requires_grad=True)
    mask = pattern(inputs)
    mask = mask | type(mask)(inputs.keep_BN, rows_BHN=rows)
    mask.kept_cells().sum().backward()
    assert rows.grad is not None
    assert (rows.grad[0, 0] > 0).all()


@pytest.mark.parametrize("size", [0, 129, -1])
def test_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        Random(size)


def test_unknown_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="measured, text"):
        Random(1, reading="paper")  # type: ignore[arg-type]


def test_str() -> None:
    assert str(Random(2)) == "Random(2)"
    assert str(Random(2, reading="text")) == "Random(2, reading='text')"


def test_drawings_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each length and layer has its own; what makes way is drawn again, the same."""
    monkeypatch.setattr(drawings, "KEPT_BYTES", 2**20)
    first = edges(Random(density=0.2), 200)
    for length in range(200, 300):
        edges(Random(density=0.2), length)
        assert sum(kept.nbytes for kept in drawings._drawings.values()) <= 2**20
    assert torch.equal(edges(Random(density=0.2), 200), first)
    assert len(edges(Random(density=0.5), 600)) == 600 * 299  # larger than the bound


def test_what_a_tracer_drew_is_not_kept() -> None:
    numbers = 77, 20, 0, 0
    with FakeTensorMode():
        assert type(drawings.uniform_pairs(*numbers)) is not Tensor
    drawn = drawings.uniform_pairs(*numbers)
    assert type(drawn) is Tensor
    assert drawn.shape == (40, 2)
