"""The masks that match a density: neighbour and random, and what all four have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aaa.objective import sparsity_of_lengths
from aaa.patterns import LayerInput, Lexical, Local, Pattern, Random, Syntax
from aaa.patterns.base import TextInput
from aaa.patterns.ranked import best_pairs
from tests import reference
from tests.reference import keep_of, lengths_strategy, mask_cells, padded, site

densities = st.floats(0.01, 1.0)
Kind = Callable[..., Pattern]
KINDS: list[Kind] = [Local, Random, Syntax, Lexical]


def texts(lengths: list[int], left: bool, extra: int = 0) -> LayerInput:
    """Random trees and words; a text's own are the same in every batch."""
    keep_BN = keep_of(lengths, left, extra)
    heads_BN = torch.full(keep_BN.shape, -1)
    words_BND = torch.zeros(*keep_BN.shape, 5)
    for keep_N, heads_N, words_ND, length in zip(
        keep_BN, heads_BN, words_BND, lengths, strict=True
    ):
        own = torch.Generator().manual_seed(length)
        parents = [int(torch.randint(place, (), generator=own)) for place in range(1, length)]
        heads_N[keep_N] = torch.tensor([0, *parents])
        words_ND[keep_N] = torch.randn(length // 2 + 1, 5, generator=own)[
            torch.arange(length) % (length // 2 + 1)
        ]
    return LayerInput(keep_BN, text=TextInput(words_BND, heads_BN))


def open_cells(length: int, density: float) -> int:
    """The nearest odd-or-even number to density N^2 that N + 2 pairs can be, from below."""
    wanted = round(density * length**2)
    return max(length, wanted - (wanted - length) % 2)


@pytest.mark.parametrize("kind", KINDS)
@given(lengths=lengths_strategy, density=densities, left=st.booleans())
def test_the_number_of_cells_is_the_densitys(
    kind: Kind, lengths: list[int], density: float, left: bool
) -> None:
    pattern = kind(density=density)
    mask = pattern(texts(lengths, left, extra=2))
    cells = mask.dense()[:, 0].numpy()
    expected = [open_cells(length, density) for length in lengths]
    np.testing.assert_array_equal(cells.sum((-2, -1)), expected)
    np.testing.assert_array_equal(mask.kept_cells()[:, 0].numpy(), expected)
    np.testing.assert_array_equal(cells, cells.transpose(0, 2, 1))
    for own, keep in zip(cells, mask.keep_BN.numpy(), strict=True):
        assert (own.diagonal() == keep).all()
    rho = np.mean([1 - count / n**2 for count, n in zip(expected, lengths, strict=True)])
    assert sparsity_of_lengths(pattern, lengths, 2) == pytest.approx(rho, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(lengths=lengths_strategy, density=densities, left=st.booleans())
def test_a_text_has_the_same_cells_in_any_batch(
    kind: Kind, lengths: list[int], density: float, left: bool
) -> None:
    pattern = kind(density=density)
    together = pattern(texts(lengths, left, extra=3))
    alone = [pattern(texts([n], False)).dense()[0, 0].numpy() for n in lengths]
    np.testing.assert_array_equal(together.dense()[:, 0].numpy(), padded(alone, together.keep_BN))


@given(length=st.integers(1, 30), density=densities)
def test_neighbours_are_the_nearest(length: int, density: float) -> None:
    pairs = sorted(
        ((i, j) for i in range(length) for j in range(i + 1, length)),
        key=lambda pair: (pair[1] - pair[0], pair[0]),
    )[: (open_cells(length, density) - length) // 2]
    expected = reference.cells_where(
        length, lambda i, j: i == j or (min(i, j), max(i, j)) in pairs
    )
    np.testing.assert_array_equal(
        mask_cells(Local(density=density), keep_of([length]))[0], expected
    )


@given(length=st.integers(1, 40), size=st.integers(0, 12))
def test_neighbours_at_a_size_and_at_its_density_are_the_same(length: int, size: int) -> None:
    by_size = reference.local(length, size)
    density = float(by_size.sum()) / length**2
    np.testing.assert_array_equal(
        mask_cells(Local(density=density), keep_of([length]))[0], by_size
    )


def test_random_pairs_are_drawn_alike() -> None:
    maps = [mask_cells(Random(density=0.3, seed=seed), keep_of([20]))[0] for seed in range(300)]
    share = np.mean(maps, axis=0)[np.triu_indices(20, 1)]
    expected = (open_cells(20, 0.3) - 20) / (20 * 19)
    assert np.abs(share - expected).max() < 5 * np.sqrt(expected * (1 - expected) / 300)


def test_random_pairs_differ_between_layers_and_seeds() -> None:
    drawn = {
        mask_cells(Random(density=0.3, seed=seed).bind(site(layer)), keep_of([20])).tobytes()
        for seed in range(4)
        for layer in range(4)
    }
    assert len(drawn) == 16


def test_best_pairs_in_the_order_of_score_nearness_place() -> None:
    scores = torch.zeros(1, 5, 5, dtype=torch.long)
    scores[0, 1, 4] = 2
    scores[0, 4, 1] = 9  # below the diagonal: never read
    edges = best_pairs(scores, keep_of([5]), torch.tensor([4]))
    assert edges[0, :4].tolist() == [[1, 4], [0, 1], [1, 2], [2, 3]]
    assert edges[0, 4:].tolist() == [[4, 1], [1, 0], [2, 1], [3, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_either_a_size_or_a_density(kind: Kind) -> None:
    option = "hops" if kind is Syntax else "size"
    name = getattr(kind, "__name__", "")
    for given_options in ({}, {option: 2, "density": 0.5}):
        with pytest.raises(ValueError, match=f"{name} takes either {option} or density"):
            kind(**given_options)
    for density in (0.0, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"share of cells in \(0, 1\]"):
            kind(density=density)
    assert str(kind(density=0.5)) == f"{name}(density=0.5)"


@pytest.mark.parametrize("pattern", [Syntax(hops=2), Lexical(3), Lexical(3) | Local(1)], ids=str)
def test_a_size_among_words_has_no_rho_by_lengths_alone(pattern: Pattern) -> None:
    with pytest.raises(ValueError, match="depends on the words"):
        sparsity_of_lengths(pattern, [5, 9], num_layers=2)
