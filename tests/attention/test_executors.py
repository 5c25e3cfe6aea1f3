"""``dense`` against attention written as loops; every other executor against ``dense``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aaa.attention import EXECUTORS, auto_attention
from aaa.attention.dense import MAX_CLOSED_SCORE, dense_attention, masked_softmax
from aaa.attention.sdpa import LONGEST_PLAIN, LONGEST_RECORDED, sdpa_attention
from aaa.masks import SparseMask
from aaa.patterns import Full, Global, LayerInput, Local, Random
from tests import reference
from tests.reference import keep_of

HEADS, WIDTH, SCALING = 2, 4, 0.7
FIXED = [Full(), Local(1), Local(0), Global(1), Local(1) | Global(1) | Random(4)]
# flex and triton have tests of their own
ON_CPU = sorted(EXECUTORS.keys() - {"flex", "triton"})
FOR_INFERENCE = ("sdpa", "exportable")
names = st.sampled_from(ON_CPU)


def random_mask(lengths: list[int], left: bool = False, seed: int = 0) -> SparseMask:
    """Rows and columns that differ between heads and texts, and the main diagonal."""
    keep_BN = keep_of(lengths, left)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.rand(2, len(lengths), HEADS, keep_BN.shape[1], generator=generator)
    main_diagonal = torch.ones(1, 1, 1)
    return SparseMask(keep_BN, (rows < 0.2).float(), (columns < 0.2).float(), main_diagonal)


def inputs_for(
    mask: SparseMask, seed: int = 0, scale: float = 1.0, requires_grad: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, len(mask.keep_BN), HEADS, mask.keep_BN.shape[1], WIDTH)
    query, key, value = torch.randn(shape, generator=generator)
    query = query * scale
    for tensor in (query, key, value):
        tensor.requires_grad_(requires_grad)
    return query, key, value


def naive(mask: SparseMask, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The reference, head by head; rows of padding are 0."""
    batch, _, num_tokens, _ = query.shape
    cells = np.broadcast_to(mask.dense().numpy(), (batch, HEADS, num_tokens, num_tokens))
    q, k, v = (x.double().numpy() for x in (query, key, value))
    results = [
        reference.attention(q[b, h], k[b, h], v[b, h], cells[b, h], SCALING)
        for b in range(batch)
        for h in range(HEADS)
    ]
    output, probabilities = (
        torch.from_numpy(np.stack(part)) for part in zip(*results, strict=True)
    )
    return (
        output.view(batch, HEADS, num_tokens, WIDTH),
        probabilities.view(batch, HEADS, num_tokens, num_tokens),
    )


@contextmanager
def num_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def close(actual: Tensor, expected: Tensor, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), rtol=rtol, atol=atol)


def real_rows(mask: SparseMask, tensor: Tensor) -> Tensor:
    return tensor * mask.keep_BN[:, None, :, None]


@given(
    name=names,
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    left=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_output_is_the_definitions(name: str, lengths: list[int], left: bool, seed: int) -> None:
    mask = random_mask(lengths, left, seed)
    inputs = inputs_for(mask, seed)
    output, probabilities = EXECUTORS[name](*inputs, mask, scaling=SCALING)
    expected_output, expected_probabilities = naive(mask, *inputs)
    close(real_rows(mask, output), expected_output)
    if probabilities is not None:
        actual = real_rows(mask, probabilities)
        close(actual, expected_probabilities)
        assert (actual[mask.dense() == 0] == 0).all()


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("pattern", FIXED, ids=str)
@pytest.mark.parametrize("left", [False, True])
def test_fixed_patterns(name: str, pattern: Any, left: bool) -> None:
    mask = pattern(LayerInput(keep_of([20, 3, 11], left)))
    inputs = inputs_for(mask)
    output, _ = EXECUTORS[name](*inputs, mask, scaling=SCALING)
    close(real_rows(mask, output), naive(mask, *inputs)[0])


@pytest.mark.parametrize("name", ON_CPU)
def test_gradients_of_query_key_value(name: str) -> None:
    mask = random_mask([6, 4])
    inputs = inputs_for(mask, requires_grad=True)
    weights = torch.randn(2, HEADS, 6, WIDTH)
    gradients = []
    for execute in (EXECUTORS[name], dense_attention):
        output, _ = execute(*inputs, mask, scaling=SCALING)
        gradients.append(torch.autograd.grad((real_rows(mask, output) * weights).sum(), inputs))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("scale", [1e3, 1e4])
def test_huge_scores_are_exact(name: str, scale: float) -> None:
    mask = random_mask([9, 5])
    inputs = inputs_for(mask, scale=scale)
    output, _ = EXECUTORS[name](*inputs, mask, scaling=SCALING)
    expected, probabilities = naive(mask, *inputs)
    # float32 scores of 1e4 are only good to 1e-3, so near ties may lie apart by that much.
    clear = (probabilities.amax(-1, keepdim=True) > 1 - 1e-9) & mask.keep_BN[:, None, :, None]
    assert clear.sum() > 10
    close(output * clear, expected * clear)
    assert output.isfinite().all()


@given(
    scores=st.lists(st.integers(-10_000, 10_000), min_size=5, max_size=5),
    cells=st.lists(st.booleans(), min_size=5, max_size=5).filter(any),
)
def test_masked_softmax_is_exact_whatever_the_closed_scores(
    scores: list[int], cells: list[bool]
) -> None:
    actual = masked_softmax(torch.tensor([scores]).float(), torch.tensor([cells]).float())
    highest = max(score for score, is_open in zip(scores, cells, strict=True) if is_open)
    weights = [
        math.exp(score - highest) if is_open else 0.0
        for score, is_open in zip(scores, cells, strict=True)
    ]
    expected = torch.tensor([weights]) / sum(weights)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("hard", [False, True])
def test_masked_softmax_gradcheck(hard: bool) -> None:
    scores = (torch.rand(2, 4, 6, dtype=torch.float64) * 4 - 2).requires_grad_()
    cells = torch.rand(2, 4, 6, dtype=torch.float64)
    if hard:  # no closed score is above the highest open one, so that closed cells are exact too
        cells = (cells > 0.5).double()
        cells[..., 0] = 1
        scores = (scores + torch.eye(6, dtype=torch.float64)[0] * 4).detach().requires_grad_()
    assert torch.autograd.gradcheck(masked_softmax, (scores, cells.requires_grad_()))


@pytest.mark.parametrize("gap", [-0.3, MAX_CLOSED_SCORE + 1, 1e4])
def test_gradient_of_a_closed_cell_is_bounded(gap: float) -> None:
    scores = torch.tensor([0.0, -0.5, gap], requires_grad=True)
    cells = torch.tensor([1.0, 1.0, 0.0], requires_grad=True)
    values = torch.tensor([1.0, 2.0, -3.0])
    probabilities = masked_softmax(scores, cells)
    output = probabilities @ values
    of_scores, of_cells = torch.autograd.grad(output, (scores, cells))
    total = 1 + math.exp(-0.5)
    counted = math.exp(min(gap, MAX_CLOSED_SCORE))
    assert of_cells[2].item() == pytest.approx(counted / total * (-3 - output.item()), rel=1e-5)
    assert of_scores[2] == 0
    assert of_scores.sum().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ON_CPU)
def test_padding_alone_gives_no_nan(name: str) -> None:
    keep_BN = keep_of([0, 3])
    gates = torch.ones(2, 1, 3, requires_grad=name not in FOR_INFERENCE)
    mask = SparseMask(keep_BN, gates, gates, torch.ones(1, 1, 1))
    inputs = inputs_for(mask, requires_grad=True)
    output, _ = EXECUTORS[name](*inputs, mask, scaling=SCALING)
    output.sum().backward()
    for tensor in (output, *(x.grad for x in (*inputs, gates) if x.requires_grad)):
        assert tensor is not None
        assert tensor.isfinite().all()


@pytest.mark.parametrize("name", ON_CPU)
def test_rows_of_padding_see_no_padding(name: str) -> None:
    mask = Local(0)(LayerInput(keep_of([4, 2])))
    query, key, value = inputs_for(mask)
    before, _ = EXECUTORS[name](query, key, value, mask, scaling=SCALING)
    value[1, :, 2:] = 1e6
    after, _ = EXECUTORS[name](query, key, value, mask, scaling=SCALING)
    assert torch.equal(before, after)


def with_holes(mask: SparseMask) -> SparseMask:
    """The same mask over a batch whose first text has padding between its tokens."""
    keep_BN = mask.keep_BN.clone()
    keep_BN[0, [2, 3, 6]] = False
    return replace(mask, keep_BN=keep_BN)


@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "gathered"])
def test_padding_inside_a_text(name: str) -> None:
    mask = with_holes(random_mask([9, 5]))
    inputs = inputs_for(mask)
    expected, _ = naive(mask, *inputs)
    output, _ = EXECUTORS[name](*inputs, mask, scaling=SCALING)
    torch.testing.assert_close(real_rows(mask, output), expected.float(), rtol=1e-5, atol=1e-6)


def test_padding_inside_a_text_is_refused_or_avoided() -> None:
    mask = with_holes(random_mask([9, 5]))
    with pytest.raises(ValueError, match="zeros between its ones; use 'auto'"):
        EXECUTORS["gathered"](*inputs_for(mask), mask, scaling=SCALING)
    assert mask.has_holes
    for left in (False, True):
        assert not random_mask([9, 5, 0], left).has_holes


@pytest.mark.parametrize("lengths", [[9, 9], [9, 5], [9, 0]])
def test_full_attention_needs_no_mask(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    mask = Full()(LayerInput(keep_of(lengths)))
    assert mask.is_full
    assert not replace(mask, window=7).is_full
    assert replace(mask, window=8).is_full
    assert not random_mask([9]).is_full
    inputs = inputs_for(mask)
    expected, _ = dense_attention(*inputs, mask, scaling=SCALING)
    monkeypatch.setattr(SparseMask, "as_bias", lambda *_: pytest.fail("N x N cells"))
    output, _ = sdpa_attention(*inputs, mask, scaling=SCALING)
    torch.testing.assert_close(real_rows(mask, output), real_rows(mask, expected))


@pytest.mark.parametrize("name", ON_CPU)
def test_products_of_sixteen_bits_do_not_overflow(name: str) -> None:
    mask = random_mask([12])
    query, key, value = (x.half() for x in inputs_for(mask))
    # Scores of thousands, whose products with an unscaled query are beyond float16's 65,504.
    query, key = 2000 * query, 60 * key
    output, _ = EXECUTORS[name](query, key, value, mask, scaling=1 / 64)
    expected, _ = dense_attention(query.float(), key.float(), value.float(), mask, scaling=1 / 64)
    torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["dense", "gathered"])
def test_gates_of_rows_without_cells_get_no_gradient(name: str) -> None:
    rows, columns = torch.zeros(2, 1, 1, 20)
    rows[..., 3] = 1
    rows.requires_grad_()
    columns.requires_grad_()
    mask = SparseMask(keep_of([20]), rows, columns)
    output, _ = EXECUTORS[name](*inputs_for(mask), mask, scaling=SCALING)
    output.square().sum().backward()
    for gates in (rows, columns):
        assert gates.grad is not None
        assert gates.grad.isfinite().all()
    assert not rows.grad[..., 4:].any()


@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "exportable"])
def test_dropout_keeps_the_expectation(name: str) -> None:
    """Over 100 texts of 200 heads that share a mask."""
    mask = random_mask([5])
    inputs = inputs_for(mask)
    expected, _ = EXECUTORS[name](*inputs, mask, scaling=SCALING)
    assert mask.rows_BHN is not None
    assert mask.columns_BHN is not None
    for head in range(HEADS):
        rows, columns = mask.rows_BHN[:, head, None], mask.columns_BHN[:, head, None]
        many = SparseMask(keep_of([5] * 100), rows, columns, mask.diagonals_BHK)
        repeated = [tensor[:, head : head + 1].expand(100, 200, -1, -1) for tensor in inputs]
        output, _ = EXECUTORS[name](*repeated, many, scaling=SCALING, dropout=0.3)
        assert output.std((0, 1)).max() > 0.1
        assert output.std(1).max() > 0.1
        torch.testing.assert_close(output.mean((0, 1)), expected[0, head], rtol=0, atol=0.04)


def test_probabilities_are_those_before_dropout() -> None:
    mask = random_mask([5])
    inputs = inputs_for(mask)
    _, plain = dense_attention(*inputs, mask, scaling=SCALING)
    _, dropped = dense_attention(*inputs, mask, scaling=SCALING, dropout=0.5)
    assert torch.equal(plain, dropped)
    torch.testing.assert_close(plain.sum(-1), torch.ones(1, HEADS, 5))


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(name: str, dtype: torch.dtype) -> None:
    mask = random_mask([12, 7])
    inputs = inputs_for(mask)
    expected, _ = dense_attention(*inputs, mask, scaling=SCALING)
    output, _ = EXECUTORS[name](*(x.to(dtype) for x in inputs), mask, scaling=SCALING)
    assert output.dtype == dtype
    torch.testing.assert_close(
        real_rows(mask, output).float(), real_rows(mask, expected), rtol=0.05, atol=0.05
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("longest", [LONGEST_RECORDED, LONGEST_RECORDED + 1])
def test_sdpa_on_either_side_of_what_is_recorded_plainly(threads: int, longest: int) -> None:
    mask = random_mask([longest, 0, longest - 20])
    inputs = inputs_for(mask, requires_grad=True)
    with num_threads(threads):
        output, _ = sdpa_attention(*inputs, mask, scaling=SCALING)
    expected, _ = dense_attention(*inputs, mask, scaling=SCALING)
    close(real_rows(mask, output), real_rows(mask, expected))
    weights = torch.randn_like(output)
    actual, wanted = (
        torch.autograd.grad((real_rows(mask, result) * weights).sum(), inputs)
        for result in (output, expected)
    )
    for of_input, of_expected in zip(actual, wanted, strict=True):
        close(of_input, of_expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_sdpa_of_nothing(shape: tuple[int, int]) -> None:
    mask = SparseMask(torch.ones(shape, dtype=torch.bool), diagonals_BHK=torch.ones(1, 1, 1))
    query = torch.ones(shape[0], HEADS, shape[1], WIDTH)
    with num_threads(2), torch.no_grad():
        output, _ = sdpa_attention(query, query, query, mask, scaling=SCALING)
    assert output.shape == query.shape


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch.func itself
@pytest.mark.parametrize("grad", [False, True])
def test_sdpa_under_transforms_of_functions(grad: bool) -> None:
    """Of short texts on two threads, where plain products would be taken."""
    mask = SparseMask(keep_of([20]), diagonals_BHK=torch.ones(1, 1, 3))
    query, key, value = inputs_for(mask)

    def attend(query: Tensor) -> Tensor:
        return sdpa_attention(query, key, value, mask, scaling=SCALING)[0]

    with num_threads(2), torch.set_grad_enabled(grad):
        output = attend(query)
        both = torch.func.vmap(attend)(torch.stack([query, 2 * query]))
        along = torch.func.jvp(attend, (query,), (query,))[1]
        pull = torch.func.vjp(attend, query)[1]
    close(both[0], output)
    # d/dt attend(t query), once forward and once backward
    weights = torch.randn_like(output)
    close((along * weights).sum(), (pull(weights)[0] * query).sum(), rtol=1e-4)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_sdpa_where_one_input_alone_wants_a_gradient(which: int) -> None:
    """As of a LoRA of values alone, in the first layer of an encoder that is frozen."""
    mask = random_mask([20, 9])
    inputs = inputs_for(mask)
    inputs[which].requires_grad_()
    with num_threads(2):
        output, _ = sdpa_attention(*inputs, mask, scaling=SCALING)
    expected, _ = dense_attention(*inputs, mask, scaling=SCALING)
    ours, wanted = (
        torch.autograd.grad(real_rows(mask, result).square().sum(), inputs[which])[0]
        for result in (output, expected)
    )
    close(ours, wanted, atol=1e-5)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("scores", [1, 4 * 40**2, 2 * 5 * 40**2, 2**20])
@pytest.mark.parametrize("own_masks", [1, 5])
def test_sdpa_by_products_of_some_texts_or_heads_at_a_time(
    threads: int, scores: int, own_masks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aaa.attention.sdpa.SCORES_AT_ONCE", scores)
    keep_BN = keep_of([40, 0, 1, 25, 40])
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.rand(2, 5, own_masks, 40, generator=generator) < 0.2).float()
    mask = SparseMask(keep_BN, rows, columns, torch.ones(1, 1, 2))
    # (B, N, H, D) in memory, as models have them.
    query, key, value = torch.randn(3, 5, 40, 5, WIDTH, generator=generator).transpose(2, 3)
    with num_threads(threads), torch.no_grad():
        output, _ = sdpa_attention(query, key, value, mask, scaling=SCALING)
    expected, _ = dense_attention(query, key, value, mask, scaling=SCALING)
    close(real_rows(mask, output), real_rows(mask, expected))


@pytest.mark.parametrize("longest", [LONGEST_PLAIN, LONGEST_PLAIN + 1])
def test_sdpa_on_either_side_of_what_is_computed_plainly(longest: int) -> None:
    mask = random_mask([longest, longest - 20])
    inputs = inputs_for(mask)
    with num_threads(2), torch.no_grad():
        output, _ = sdpa_attention(*inputs, mask, scaling=SCALING)
    expected, _ = dense_attention(*inputs, mask, scaling=SCALING)
    close(real_rows(mask, output), real_rows(mask, expected))


def test_auto_and_sdpa_where_gates_are_learned() -> None:
    rows = torch.ones(1, 1, 4, requires_grad=True)
    mask = SparseMask(keep_of([4]), rows_BHN=rows)
    inputs = inputs_for(mask)
    output, _ = auto_attention(*inputs, mask, scaling=SCALING)
    output.square().sum().backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
    with pytest.raises(ValueError, match="'dense' or 'auto'"):
        sdpa_attention(*inputs, mask, scaling=SCALING)
    with torch.no_grad():
        torch.testing.assert_close(sdpa_attention(*inputs, mask, scaling=SCALING)[0], output)


@pytest.mark.parametrize("name", ["dense", "sdpa", "auto"])
def test_compiled(name: str) -> None:
    """As it is without; in one graph, but for ``auto``, whose choice reads values."""
    mask = random_mask([33, 20])
    inputs = inputs_for(mask, requires_grad=True)
    wanted = list(inputs)
    if name != "sdpa":
        assert mask.rows_BHN is not None
        wanted.append(mask.rows_BHN.requires_grad_())

    def attend(*tensors: Tensor) -> Tensor:
        return EXECUTORS[name](*tensors, mask, SCALING)[0]

    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=name != "auto", backend="aot_eager")
    outputs = compiled(*inputs), attend(*inputs)
    gradients = [torch.autograd.grad(output.square().sum(), wanted) for output in outputs]
    close(outputs[0], outputs[1])
    for ours, plain in zip(*gradients, strict=True):
        close(ours, plain, atol=1e-5)
