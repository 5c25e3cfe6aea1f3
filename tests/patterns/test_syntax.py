from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aaa.patterns import LayerInput, Local, Syntax
from aaa.patterns.base import TextInput
from tests.reference import cells_where, keep_of, padded, union

FAR = 10**6


@st.composite
def forests(draw: st.DrawFn, max_words: int = 12) -> list[int]:
    """Heads of a text's tokens: any trees over its words, words of one to three pieces."""
    order = draw(st.permutations(range(draw(st.integers(1, max_words)))))
    heads = {}
    for rank, word in enumerate(order):
        heads[word] = draw(st.sampled_from([word, *order[:rank]]))
    pieces = [draw(st.integers(1, 3)) for _ in order]
    start = np.concatenate([[0], np.cumsum(pieces)]).tolist()
    tokens: list[int] = []
    for word, count in enumerate(pieces):
        tokens += [start[heads[word]]] + [-2] * (count - 1)
    return tokens


def hops(heads: list[int]) -> np.ndarray:
    """Hops between tokens, by searching breadth first through the words; FAR for no path."""
    word_of: list[int] = []
    for place, head in enumerate(heads):
        word_of.append(word_of[-1] if head == -2 else place)
    linked: dict[int, set[int]] = {word: set() for word in word_of}
    for place, head in enumerate(heads):
        if head >= 0:
            linked[place].add(word_of[head])
            linked[word_of[head]].add(place)
    result = np.full((len(heads), len(heads)), FAR)
    for i, source in enumerate(word_of):
        reached, queue = {source: 0}, deque([source])
        while queue:
            word = queue.popleft()
            for other in linked[word] - reached.keys():
                reached[other] = reached[word] + 1
                queue.append(other)
        for j, target in enumerate(word_of):
            result[i, j] = reached.get(target, FAR)
    return result


def inputs_of(texts: list[list[int]], left: bool = False, extra: int = 0) -> LayerInput:
    keep_BN = keep_of([len(heads) for heads in texts], left, extra)
    heads_BN = torch.full(keep_BN.shape, -1)
    for keep_N, heads_N, heads in zip(keep_BN, heads_BN, texts, strict=True):
        heads_N[keep_N] = torch.tensor(heads)
    return LayerInput(keep_BN, text=TextInput(heads_BN=heads_BN))


def cells(pattern: Syntax, inputs: LayerInput) -> np.ndarray:
    return pattern(inputs).dense()[:, 0].numpy()


@given(
    texts=st.lists(forests(), min_size=1, max_size=3), reach=st.integers(0, 4), left=st.booleans()
)
def test_words_within_hops(texts: list[list[int]], reach: int, left: bool) -> None:
    inputs = inputs_of(texts, left, extra=2)
    own = []
    for heads in texts:
        distance = hops(heads)
        own.append((distance <= reach).astype(float))
    mask = Syntax(hops=reach)(inputs)
    np.testing.assert_array_equal(mask.dense()[:, 0].numpy(), padded(own, inputs.keep_BN))
    kept = [map_.sum() for map_ in own]
    np.testing.assert_array_equal(mask.kept_cells()[:, 0].numpy(), kept)


@given(heads=forests(), density=st.floats(0.05, 1.0))
def test_at_a_density_the_fewest_hops_come_first(heads: list[int], density: float) -> None:
    length, distance = len(heads), hops(heads)
    opened = cells(Syntax(density=density), inputs_of([heads]))[0]
    keys = [
        [(distance[i, j], abs(i - j), min(i, j)) for j in range(length)] for i in range(length)
    ]
    of_open = [keys[i][j] for i in range(length) for j in range(length) if opened[i, j] and i != j]
    of_closed = [keys[i][j] for i in range(length) for j in range(length) if not opened[i, j]]
    if of_open and of_closed:
        assert max(of_open) < min(of_closed)


def test_a_sentence() -> None:
    # [CLS] the un ##help ##ful cook slept [SEP], all hanging from [CLS] by "slept"
    heads = [0, 5, 5, -2, -2, 6, 0, 0]
    opened = cells(Syntax(hops=1), inputs_of([heads]))[0]
    pairs = {(i, j) for i, j in zip(*np.nonzero(opened), strict=True) if i < j}
    assert pairs == {
        (0, 6), (0, 7), (1, 5), (2, 3), (2, 4), (3, 4), (2, 5), (3, 5), (4, 5), (5, 6)
    }  # fmt: skip
    np.testing.assert_array_equal(opened, opened.T)


def test_sentences_apart_are_never_joined() -> None:
    opened = cells(Syntax(hops=50), inputs_of([[0, 0, 1, 3, 3]]))[0]
    np.testing.assert_array_equal(opened, cells_where(5, lambda i, j: (i < 3) == (j < 3)))


@given(heads=forests())
def test_a_head_may_be_named_by_any_piece_of_its_word(heads: list[int]) -> None:
    renamed = list(heads)
    for place, head in enumerate(heads):
        if 0 <= head < len(heads) - 1 and heads[head + 1] == -2 and head != place:
            renamed[place] = head + 1
    np.testing.assert_array_equal(
        cells(Syntax(hops=2), inputs_of([renamed])), cells(Syntax(hops=2), inputs_of([heads]))
    )


def test_deep_trees_are_counted_exactly_under_autocast() -> None:
    chain = [0, *range(599)]
    inputs = inputs_of([chain])
    with torch.autocast("cpu", torch.bfloat16):
        opened = cells(Syntax(hops=3), inputs)[0]
    expected = Local(3)(LayerInput(inputs.keep_BN)).dense()[0, 0].numpy()
    np.testing.assert_array_equal(opened, expected)


def test_the_tree_is_read_once_a_forward_pass() -> None:
    inputs = inputs_of([[0, 0, 1]])
    first, second = Syntax(hops=1)(inputs), Syntax(hops=1)(inputs)
    assert first.edges_BE2 is second.edges_BE2
    assert Syntax(hops=2)(inputs).edges_BE2 is not first.edges_BE2


def test_union_with_others() -> None:
    inputs = inputs_of([[1, 1, 1, 2, 0]])
    both = (Syntax(hops=1) | Local(1))(inputs)
    expected = union(cells(Syntax(hops=1), inputs)[0], Local(1)(inputs).dense()[0, 0].numpy())
    np.testing.assert_array_equal(both.dense()[0, 0].numpy(), expected)
    assert both.kept_cells().item() == expected.sum()


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (torch.tensor([[1, 0, 2]]), "in a circle"),
        (torch.tensor([[0, 3, 0]]), "positions among"),
        (torch.tensor([[0, -1, 0]]), "positions among"),
        (torch.tensor([[-2, 0, 0]]), "positions among"),
        (torch.tensor([[0, 0]]), r"shape \(1, 2\)"),
        (None, "needs the dependency trees"),
    ],
)
def test_bad_heads(heads: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Syntax(hops=1)(LayerInput(keep_of([3]), text=TextInput(heads_BN=heads)))


def test_a_head_may_not_lie_in_padding() -> None:
    heads_BN = torch.tensor([[0, 3, 0, -1, -1]])
    with pytest.raises(ValueError, match="positions among"):
        Syntax(hops=1)(LayerInput(keep_of([3], extra=2), text=TextInput(heads_BN=heads_BN)))


def test_bad_hops() -> None:
    with pytest.raises(ValueError, match="Syntax hops"):
        Syntax(hops=-1)
