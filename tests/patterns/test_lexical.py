from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aaa.patterns import LayerInput, Lexical
from aaa.patterns.base import TextInput
from tests.reference import cells_where, keep_of, lengths_strategy, padded

TABLE = torch.randn(9, 6, generator=torch.Generator().manual_seed(5))


def words_of(length: int) -> list[int]:
    """Nine words, so that longer texts repeat some."""
    own = torch.Generator().manual_seed(length)
    return torch.randint(len(TABLE), (length,), generator=own).tolist()


def inputs_of(lengths: list[int], left: bool = False, extra: int = 0) -> LayerInput:
    keep_BN = keep_of(lengths, left, extra)
    ids_BN = torch.zeros(keep_BN.shape, dtype=torch.long)
    for keep_N, ids_N, length in zip(keep_BN, ids_BN, lengths, strict=True):
        ids_N[keep_N] = torch.tensor(words_of(length))
    return LayerInput(keep_BN, text=TextInput(embeddings_BND=TABLE[ids_BN]))


def similarity(length: int) -> np.ndarray:
    words = words_of(length)
    vectors = TABLE.double().numpy()
    return np.array(
        [
            [
                vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
                for b in words
            ]
            for a in words
        ]
    ).round(6)


def most_similar(length: int, size: int) -> np.ndarray:
    cosine = similarity(length)
    chosen = {
        i: sorted(
            (j for j in range(length) if j != i), key=lambda j: (-cosine[i, j], abs(i - j), j)
        )[:size]
        for i in range(length)
    }
    return cells_where(length, lambda i, j: i == j or i in chosen[j] or j in chosen[i])


def cells(pattern: Lexical, inputs: LayerInput) -> np.ndarray:
    return pattern(inputs).dense()[:, 0].numpy()


@given(lengths=lengths_strategy, size=st.integers(1, 30), left=st.booleans())
def test_each_token_and_its_most_similar(lengths: list[int], size: int, left: bool) -> None:
    inputs = inputs_of(lengths, left, extra=2)
    expected = padded([most_similar(length, size) for length in lengths], inputs.keep_BN)
    mask = Lexical(size)(inputs)
    np.testing.assert_array_equal(mask.dense()[:, 0].numpy(), expected)
    np.testing.assert_array_equal(mask.kept_cells()[:, 0].numpy(), expected.sum((-2, -1)))


@given(length=st.integers(2, 24), density=st.floats(0.05, 1.0))
def test_at_a_density_the_most_similar_come_first(length: int, density: float) -> None:
    cosine, opened = similarity(length), cells(Lexical(density=density), inputs_of([length]))[0]
    pairs = [(i, j) for i in range(length) for j in range(i + 1, length)]
    ranked = sorted(pairs, key=lambda p: (-cosine[p], p[1] - p[0], p[0]))
    count = int(opened[np.triu_indices(length, 1)].sum())
    assert {pair for pair in pairs if opened[pair]} == set(ranked[:count])
    np.testing.assert_array_equal(opened, opened.T)


def test_repeated_words_see_each_other() -> None:
    words = torch.eye(3)[[0, 1, 2, 0, 1]]
    opened = cells(
        Lexical(1), LayerInput(keep_of([5]), text=TextInput(embeddings_BND=words[None]))
    )[0]
    assert opened[0, 3] == opened[3, 0] == opened[1, 4] == opened[4, 1] == 1


def test_the_length_of_a_vector_does_not_count() -> None:
    inputs = inputs_of([17])
    embeddings = inputs.text.embeddings_BND
    assert isinstance(embeddings, Tensor)
    scaled = embeddings * torch.arange(1, 18)[:, None]
    other = LayerInput(inputs.keep_BN, text=TextInput(embeddings_BND=scaled))
    np.testing.assert_array_equal(cells(Lexical(2), inputs), cells(Lexical(2), other))


def test_similarities_are_computed_once_a_forward_pass() -> None:
    inputs = inputs_of([7])
    assert Lexical(2)(inputs).edges_BE2 is Lexical(2)(inputs).edges_BE2
    assert Lexical(3)(inputs).edges_BE2 is not Lexical(2)(inputs).edges_BE2


def test_bad_size() -> None:
    with pytest.raises(ValueError, match="Lexical size"):
        Lexical(0)
