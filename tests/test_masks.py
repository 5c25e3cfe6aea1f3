"""SparseMask against its definition cell by cell, for every combination of its parts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aaa.masks import SparseMask
from aaa.patterns import Full, Global, LayerInput, Local, Random
from tests.reference import keep_of

GATES = ("rows_BHN", "columns_BHN", "diagonals_BHK")


WINDOWS = st.none() | st.integers(0, 8)


@st.composite
def masks(
    draw: st.DrawFn,
    soft: bool = False,
    keep_BN: Tensor | None = None,
    windows: st.SearchStrategy[int | None] = WINDOWS,
) -> SparseMask:
    """Any mask: parts missing or not, per head or shared, per sample or shared, any padding."""
    if keep_BN is None:
        lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=3))
        left = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
        keep_BN = keep_of(lengths, left, extra=draw(st.integers(0, 2)))
    batch, num_tokens = keep_BN.shape
    heads = draw(st.sampled_from([1, 3]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    widths = (num_tokens, num_tokens, draw(st.integers(1, num_tokens + 2)))
    parts: dict[str, Tensor] = {}
    for name, width in zip(GATES, widths, strict=True):
        if draw(st.booleans()):
            shape = (draw(st.sampled_from([1, batch])), draw(st.sampled_from([1, heads])), width)
            gates = torch.rand(shape, generator=generator, dtype=torch.float64)
            parts[name] = gates if soft else (gates < 0.3).double()
    if draw(st.booleans()):
        parts["edges_BE2"] = _edges(draw(st.sampled_from([1, batch])), num_tokens, generator)
    return SparseMask(keep_BN, **parts, window=draw(windows))


def _edges(batch: int, num_tokens: int, generator: torch.Generator) -> Tensor:
    """Up to five different cells a sample, padding included; the rest is filled up with -1."""
    edges_BE2 = torch.full((batch, 5, 2), -1)
    for sample in edges_BE2:
        count = int(torch.randint(0, 6, (), generator=generator))
        cells = torch.randperm(num_tokens**2, generator=generator)[:count]
        sample[: len(cells)] = torch.stack([cells // num_tokens, cells % num_tokens], dim=-1)
    return edges_BE2


def cell_by_cell(mask: SparseMask) -> np.ndarray:
    """1 - (1 - row_i)(1 - column_j)(1 - diagonal_|i-j|)(1 - edge_ij) in reach, (B, H, N, N)."""
    batch, num_tokens = mask.keep_BN.shape
    gates = [getattr(mask, name) for name in GATES]
    heads = max((gate.shape[1] for gate in gates if gate is not None), default=1)

    def of(gate: Tensor | None, b: int, h: int, at: int) -> float:
        if gate is None or at >= gate.shape[2]:
            return 0.0
        return float(gate[b % gate.shape[0], h % gate.shape[1], at])

    result = np.zeros((batch, heads, num_tokens, num_tokens))
    for b, h, i, j in itertools.product(*map(range, result.shape)):
        edges = () if mask.edges_BE2 is None else mask.edges_BE2[b % len(mask.edges_BE2)].tolist()
        row, column, diagonal = (
            of(gate, b, h, at) for gate, at in zip(gates, (i, j, abs(i - j)), strict=True)
        )
        closed = (1 - row) * (1 - column) * (1 - diagonal) * (1 - ([i, j] in edges))
        in_reach = mask.window is None or abs(i - j) <= mask.window
        if mask.keep_BN[b, i] and mask.keep_BN[b, j] and in_reach:
            result[b, h, i, j] = 1 - closed
    return result


def close(actual: Tensor, expected: Any) -> None:
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(actual.double(), expected.double().expand_as(actual))


@given(mask=masks())
def test_dense_hard(mask: SparseMask) -> None:
    expected = torch.from_numpy(cell_by_cell(mask))
    assert torch.equal(mask.dense().double(), expected)
    # Rows of padding are open to all real tokens, or to everything where there are none.
    keys_BN = mask.keep_BN | ~mask.keep_BN.any(-1, keepdim=True)
    padding_BNN = ~mask.keep_BN.unsqueeze(-1) & keys_BN.unsqueeze(-2)
    attended = (expected > 0) | padding_BNN.unsqueeze(1)
    for dtype in (torch.float32, torch.bfloat16):
        bias = torch.where(attended, 0.0, -torch.inf).to(dtype)
        assert torch.equal(*torch.broadcast_tensors(mask.as_bias(dtype), bias))


def test_a_bias_that_is_kept_stays_as_it_is_and_serves_training() -> None:
    """The map of a few diagonals is made once: here where nothing may be kept for a gradient."""
    keep_BN, edge = torch.ones(1, 7, dtype=torch.bool), torch.tensor([[[0, 6]]])
    local = SparseMask(keep_BN, diagonals_BHK=torch.tensor([[[1.0, 0.0, 1.0]]]))
    one_column = torch.arange(7).eq(4).float().view(1, 1, 7)
    further = [
        replace(local, **part)
        for part in (
            {"columns_BHN": one_column},
            {"rows_BHN": one_column},
            {"edges_BE2": edge},
            {"window": 1},
            {"keep_BN": keep_of([5, 7])},
        )
    ]
    with torch.inference_mode():
        expected = local.as_bias(torch.float32).clone()
        for mask in further:
            mask.as_bias(torch.float32)
    bias = local.as_bias(torch.float32)
    assert torch.equal(bias, expected)
    assert torch.equal(bias == 0, local.dense() == 1)
    scores = torch.zeros(1, 1, 7, 7, requires_grad=True)
    ((scores + bias).exp() * bias.exp()).sum().backward()
    assert torch.equal(scores.grad == 1, local.dense() == 1)  # type: ignore[arg-type]


@given(mask=masks(soft=True))
def test_dense_soft(mask: SparseMask) -> None:
    close(mask.dense(), cell_by_cell(mask))


@given(mask=masks())
def test_kept_cells_hard(mask: SparseMask) -> None:
    expected = torch.from_numpy(cell_by_cell(mask)).sum((-2, -1))
    assert torch.equal(mask.kept_cells().double(), expected)


@given(mask=masks(soft=True))
def test_kept_cells_soft(mask: SparseMask) -> None:
    close(mask.kept_cells(), cell_by_cell(mask).sum((-2, -1)))


@given(mask=masks())
def test_sparsity_is_eq_9(mask: SparseMask) -> None:
    lengths = mask.keep_BN.sum(-1).numpy()
    shares = cell_by_cell(mask).sum((-2, -1)).mean(1) / np.maximum(lengths, 1) ** 2
    close(mask.sparsity(), np.where(lengths > 0, 1 - shares, 0))


@given(mask=masks(soft=True))
def test_gradient_of_kept_cells_is_that_of_dense(mask: SparseMask) -> None:
    gates = {name: getattr(mask, name) for name in GATES if getattr(mask, name) is not None}
    for gate in gates.values():
        gate.requires_grad_()
    if not gates:
        return
    shape_BH = mask.kept_cells().shape
    weights_BH = torch.arange(1.0, 1 + shape_BH.numel()).view(shape_BH)
    short, long = mask.kept_cells(), mask.dense().sum((-2, -1))
    actual = torch.autograd.grad((short * weights_BH).sum(), list(gates.values()))
    expected = torch.autograd.grad((long * weights_BH).sum(), list(gates.values()))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("window", [None, 0, 2])
@pytest.mark.parametrize("method", ["kept_cells", "dense", "sparsity"])
def test_gradcheck(method: str, window: int | None) -> None:
    keep_BN = keep_of([3, 5], [True, False])
    edges_BE2 = torch.tensor([[[0, 4], [3, 1], [-1, -1]]])

    def function(rows: Tensor, columns: Tensor, diagonals: Tensor) -> Tensor:
        mask = SparseMask(keep_BN, rows, columns, diagonals, edges_BE2, window)
        return getattr(mask, method)()

    shapes = ((2, 1, 5), (1, 2, 5), (2, 2, 3))
    gates = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(function, gates)


@st.composite
def three_masks(draw: st.DrawFn) -> tuple[SparseMask, SparseMask, SparseMask]:
    keep_BN = draw(masks()).keep_BN
    windows = st.just(draw(WINDOWS))  # a layer has one
    first, second, third = (draw(masks(keep_BN=keep_BN, windows=windows)) for _ in range(3))
    return first, second, third


@given(three=three_masks())
def test_union_is_the_or_of_cells(three: tuple[SparseMask, ...]) -> None:
    first, second, third = three
    either = torch.maximum(first.dense(), second.dense())
    for mask in (first | second, second | first):
        assert torch.equal(*torch.broadcast_tensors(mask.dense(), either))
        close(mask.kept_cells(), mask.dense().sum((-2, -1)))
    for mask in (first | first, first | first | first):
        assert torch.equal(mask.dense(), first.dense())
        assert torch.equal(mask.kept_cells(), first.kept_cells())
    left, right = (first | second) | third, first | (second | third)
    assert torch.equal(left.dense(), right.dense())
    assert torch.equal(left.kept_cells(), right.kept_cells())


def test_edges_in_both_masks_count_once() -> None:
    keep_BN = keep_of([4])
    one = SparseMask(keep_BN, edges_BE2=torch.tensor([[[0, 1], [2, 3], [-1, -1]]]))
    other = SparseMask(keep_BN, edges_BE2=torch.tensor([[[2, 3], [1, 0]]]))
    assert (one | other).kept_cells().item() == 3
    assert (one | one | other).kept_cells().item() == 3


def test_soft_union_is_eq_12() -> None:
    keep_BN, a, b = keep_of([3]), torch.rand(1, 1, 3), torch.rand(1, 1, 3)
    mask = SparseMask(keep_BN, rows_BHN=a) | SparseMask(keep_BN, columns_BHN=b)
    a, b = a.squeeze()[:, None], b.squeeze()[None, :]
    close(mask.dense()[0, 0], a + b - a * b)


def test_kept_cells_is_exact_and_small_for_long_texts() -> None:
    length = 16_384  # dense() would take 2 GB
    inputs = LayerInput(torch.ones(2, length, dtype=torch.bool))
    mask = (Local(2) | Global(2))(inputs)
    assert mask.kept_cells().tolist() == [[9 * length - 20]] * 2


@pytest.mark.parametrize(("window", "length"), [(0, 7), (3, 7), (6, 7), (9, 7), (64, 16_384)])
def test_full_attention_within_a_window_is_local(window: int, length: int) -> None:
    inputs = LayerInput(torch.ones(2, length, dtype=torch.bool))
    mask = replace(Full()(inputs), window=window)
    reach = min(window, length - 1)
    assert mask.kept_cells().tolist() == [[(2 * reach + 1) * length - reach * (reach + 1)]] * 2


def test_a_window_cuts_rows_columns_and_edges() -> None:
    inputs = LayerInput(keep_of([9, 5], [False, True]))
    mask = replace((Local(1) | Global(1) | Random(3))(inputs), window=2)
    assert torch.equal(mask.dense(), mask.dense() * Local(2)(inputs).dense())
    assert mask.dense()[0, 0, 0].tolist() == [1] * 3 + [0] * 6


def test_no_tokens_no_cells() -> None:
    mask = (Local(1) | Global(1))(LayerInput(keep_of([0, 2])))
    assert mask.kept_cells().tolist() == [[0], [4]]
    assert mask.sparsity().isfinite().all()


def test_needs_gradient() -> None:
    mask = SparseMask(keep_of([3]), rows_BHN=torch.ones(1, 1, 3))
    learned = replace(mask, rows_BHN=torch.ones(1, 1, 3, requires_grad=True))
    assert not mask.needs_gradient
    assert learned.needs_gradient
    assert (mask | learned).needs_gradient
    with torch.no_grad():
        assert not learned.needs_gradient
