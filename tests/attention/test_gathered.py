"""``gathered`` against ``dense``: outputs, gradients of inputs and gates, all kinds of masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aaa.attention import gates, passes
from aaa.attention.blockwise import Dropout
from aaa.attention.dense import dense_attention
from aaa.attention.gathered import gathered_attention
from aaa.attention.passes import passes_for
from aaa.attention.selection import selections
from aaa.masks import SparseMask
from tests.reference import keep_of
from tests.test_masks import GATES, masks

gathered: Any = gathered_attention
dense: Any = dense_attention

HEADS, SIZE, SCALING = 3, 4, 0.6


def make_inputs(mask: SparseMask, heads: int = HEADS, seed: int = 0) -> tuple[Tensor, ...]:
    """Query, key and value as encoders lay them out, and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    batch, num_tokens = mask.keep_BN.shape
    shape = (4, batch, num_tokens, heads, SIZE)
    query, key, value, gradient = torch.randn(shape, generator=generator).transpose(2, 3)
    gradient = gradient * mask.keep_BN[:, None, :, None]
    return (*(x.requires_grad_() for x in (query, key, value)), gradient)


def learned(mask: SparseMask) -> SparseMask:
    """The mask with gates that want a gradient, and an open main diagonal: no row is empty."""
    mask = mask | SparseMask(mask.keep_BN, diagonals_BHK=torch.ones(1, 1, 1), window=mask.window)
    wanted: Any = {
        name: gate.float().detach().requires_grad_() for name, gate in gates_of(mask).items()
    }
    return replace(mask, **wanted)


def gates_of(mask: SparseMask) -> dict[str, Tensor]:
    return {name: getattr(mask, name) for name in GATES if getattr(mask, name) is not None}


def results(execute: Any, mask: SparseMask, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The output of real tokens and all gradients."""
    *tensors, gradient = inputs
    output, _ = execute(*tensors, mask, scaling=SCALING)
    output = output * mask.keep_BN[:, None, :, None]
    wanted = [*tensors, *(gate for gate in gates_of(mask).values() if gate.requires_grad)]
    return [output, *torch.autograd.grad((output * gradient).sum(), wanted)]


def assert_like_dense(mask: SparseMask, inputs: tuple[Tensor, ...]) -> None:
    actual = results(gathered, mask, inputs)
    expected = results(dense, mask, inputs)
    for ours, reference in zip(actual, expected, strict=True):
        assert ours.dtype == reference.dtype
        size = max(1.0, reference.abs().max().item())
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5 * size)


@given(mask=masks(), seed=st.integers(0, 100))
def test_any_mask(mask: SparseMask, seed: int) -> None:
    assert_like_dense(mask, make_inputs(mask, seed=seed))


@given(mask=masks(), seed=st.integers(0, 100))
def test_any_mask_being_learned(mask: SparseMask, seed: int) -> None:
    mask = learned(mask)
    assert_like_dense(mask, make_inputs(mask, seed=seed))


def random_mask(
    lengths: list[int], seed: int, share: float, distances: Any, edges: int, per_head: bool
) -> SparseMask:
    generator = torch.Generator().manual_seed(seed)
    keep_BN = keep_of(lengths, left=bool(seed % 2))
    batch, num_tokens = keep_BN.shape
    shape = (2, batch, HEADS if per_head else 1, num_tokens)
    rows, columns = (torch.rand(shape, generator=generator) < share).float()
    diagonals = torch.zeros(1, 1, num_tokens)
    diagonals[..., [d for d in distances if d < num_tokens]] = 1
    edges_BE2 = None
    if edges:
        cells_BE = torch.rand(batch, num_tokens**2, generator=generator).argsort()[:, :edges]
        edges_BE2 = torch.stack([cells_BE // num_tokens, cells_BE % num_tokens], dim=-1)
    return SparseMask(keep_BN, rows, columns, diagonals, edges_BE2)


NEAR, FAR, WIDE = range(3), [0, 1, 2, 5, 70, 71, 73, 150, 299], range(129)
APART = [0, 1, *range(70, 76), *range(150, 157)]


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize(
    ("share", "distances", "edges", "window"),
    [
        (0.02, NEAR, 0, None),
        (0.02, FAR, 0, None),
        (0.02, FAR, 2000, None),
        (0.0, FAR, 0, None),
        (0.02, APART, 0, None),
        (0.02, WIDE, 0, None),
        (0.0, [0], 0, None),  # empty selections
        (0.0, [0], 300, None),  # slots
        (0.02, NEAR, 2000, None),  # crowded rows
        (0.02, [], 0, None),  # queries without any key
        (0.6, NEAR, 50, None),  # hardly sparse: all cells are computed
        (1.0, NEAR, 0, None),  # all rows
        (0.1, NEAR, 100, 20),  # a window over everything
        (1.0, NEAR, 0, 33),
    ],
)
def test_longer_texts(
    monkeypatch: pytest.MonkeyPatch,
    share: float, distances: Any, edges: int, window: int | None, per_head: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(gates, "SAMPLED_TOKENS", 10_000)  # then closed gates are exact as well
    monkeypatch.setattr(passes, "NUMBERS_AT_ONCE", 2**13)  # several chunks and groups of heads
    mask = random_mask([300, 171], 1, share, distances, edges, per_head)
    mask = replace(mask, window=window)
    if 0 in distances:
        mask = learned(mask)
    assert_like_dense(mask, make_inputs(mask))


@pytest.mark.parametrize("distances", [NEAR, FAR, APART])
def test_chunks_of_several_heads(monkeypatch: pytest.MonkeyPatch, distances: Any) -> None:
    monkeypatch.setattr(gates, "SAMPLED_TOKENS", 10_000)
    monkeypatch.setattr(passes, "QUERIES_AT_ONCE", 64)
    mask = learned(random_mask([300, 171], 1, 0.02, distances, 0, False))
    (one, *_), *_ = [passes_for(text.selection) for text in selections(mask, HEADS)]
    assert next(one.head_groups(HEADS)) == slice(0, HEADS)
    assert len(list(one.chunks())) > 1
    assert_like_dense(mask, make_inputs(mask))


def test_training_after_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a mask in inference mode serves training too."""
    monkeypatch.setattr(gates, "SAMPLED_TOKENS", 10_000)
    mask = random_mask([97], 1, 0.05, [0, 3, 50], 40, False)
    inputs = make_inputs(mask)
    with torch.inference_mode():
        gathered(*inputs[:3], mask, scaling=SCALING)
    assert_like_dense(learned(mask), inputs)


@pytest.mark.parametrize("window", [0, 1, 2])
def test_narrow_windows(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """As diagonals of a pattern these would be read cell by cell, in texts of 1,400 and 5,100."""
    monkeypatch.setattr("aaa.attention.bands.ANY_SCATTERED", 0)
    mask = random_mask([90, 70], 1, 0.1, NEAR, 0, False)
    assert_like_dense(learned(replace(mask, window=window)), make_inputs(mask))


@pytest.mark.slow
def test_five_thousand_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "SAMPLED_TOKENS", 10_000)
    mask = learned(random_mask([5000], 0, 0.01, NEAR, 0, False))
    assert_like_dense(mask, make_inputs(mask, heads=1))


def test_all_ways_are_tested() -> None:
    """What the masks above are to reach: single cells and scattered diagonals in slots, crowded
    rows, several bands.
    """

    def parts(share: float, distances: Any, edges: int) -> set[str]:
        mask = random_mask([300], 1, share, distances, edges, per_head=False)
        (one,) = selections(mask, HEADS)
        found = passes_for(one.selection)
        kinds = {type(part).__name__ for part in found[0].parts}
        return kinds | {f"{len(found[0].parts)} parts", f"{len(found)} passes"}

    assert parts(0.0, [0], 300) == {"Band", "Slots", "2 parts", "2 passes"}
    assert parts(0.02, NEAR, 0) == {"Columns", "Band", "2 parts", "2 passes"}
    assert parts(0.02, FAR, 0) == {"Columns", "Band", "Slots", "3 parts", "2 passes"}
    assert parts(0.02, APART, 0) == {"Columns", "Band", "6 parts", "2 passes"}
    assert parts(0.6, NEAR, 50) == {"Columns", "1 parts", "1 passes"}


def test_estimates_of_closed_gates_are_unbiased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "SAMPLED_TOKENS", 12)
    mask = learned(random_mask([60], 3, 0.05, NEAR, 0, False))
    inputs = make_inputs(mask)
    expected = results(dense, mask, inputs)[4:]
    draws = [torch.stack(of) for of in zip(
        *(results(gathered, mask, inputs)[4:] for _ in range(150)), strict=True
    )]  # fmt: skip
    for gate, draw, reference in zip(gates_of(mask).values(), draws, expected, strict=True):
        error = draw.std(0) / len(draw) ** 0.5
        assert (draw.std(0)[gate == 1] < 1e-4).all()  # open gates are exact
        assert ((draw.mean(0) - reference).abs() <= 5 * error + 1e-4).all()
        if gate.shape[-1] > 3:
            assert draw.std(0).max() > 1e-3


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_gradients_under_dropout(share: float) -> None:
    """The backward pass drops what the forward pass dropped."""
    mask = random_mask([40], 0, share, NEAR, 20, False)
    inputs = [x.detach().double().requires_grad_() for x in make_inputs(mask)[:3]]

    def attend(*tensors: Tensor) -> Tensor:
        torch.manual_seed(3)
        return gathered(*tensors, mask, scaling=SCALING, dropout=0.4)[0]

    assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)
    assert not torch.allclose(attend(*inputs), attend(*inputs[:2], inputs[2] * 1.001))


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_drops_its_share(share: float, dtype: torch.dtype) -> None:
    def draws() -> list[Tensor]:
        dropout = Dropout(share, torch.tensor(5), torch.device("cpu"))
        probabilities = torch.empty(3, 1001, 333, dtype=dtype)  # no multiple of four
        drawn = [dropout.draw(probabilities) for _ in range(2)]
        return [one for one in drawn if one is not None]

    first, second = draws()
    count = first.numel()
    assert first.dtype == dtype
    assert first.unique().tolist() == pytest.approx([0, 1 / (1 - share)], rel=share * 0.01)
    for kept, rate in ((first > 0, 1 - share), ((first > 0) & (second > 0), (1 - share) ** 2)):
        deviation = (count * rate * (1 - rate)) ** 0.5
        assert abs(int(kept.sum()) - count * rate) < 5 * deviation
    neighbours = (first[..., 1:] > 0) & (first[..., :-1] > 0)
    assert neighbours.double().mean().item() == pytest.approx((1 - share) ** 2, abs=0.005)
    assert all(map(torch.equal, draws(), [first, second]))


def test_dropout_of_everything_and_of_nothing() -> None:
    everything = Dropout(1.0, torch.tensor(0), torch.device("cpu")).draw(torch.ones(7))
    assert everything is not None
    assert not everything.any()
    assert Dropout(0.0, torch.tensor(0), torch.device("cpu")).draw(torch.ones(7)) is None


def test_checkpointing_repeats_dropout_and_samples() -> None:
    mask = learned(random_mask([90], 0, 0.05, NEAR, 0, False))
    *tensors, gradient = make_inputs(mask)

    def attend(*inputs: Tensor) -> Tensor:
        return gathered(*inputs, mask, scaling=SCALING, dropout=0.2)[0]

    wanted = [*tensors, *gates_of(mask).values()]
    found = []
    for run in (attend, lambda *inputs: checkpoint(attend, *inputs, use_reentrant=False)):
        torch.manual_seed(5)
        found.append(torch.autograd.grad((run(*tensors) * gradient).sum(), wanted))
    for plain, again in zip(*found, strict=True):
        assert torch.equal(plain, again)


def test_compiled_in_one_graph() -> None:
    mask = learned(random_mask([33], 0, 0.1, NEAR, 0, False))  # short enough to be exact
    inputs = make_inputs(mask)

    def attend(*arguments: Any, **settings: Any) -> Any:
        return gathered(*arguments, **settings)

    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    plain = results(attend, mask, inputs)
    for ours, reference in zip(results(compiled, mask, inputs)[:4], plain[:4], strict=True):
        torch.testing.assert_close(ours, reference)


def test_operator_is_well_defined() -> None:
    mask = learned(random_mask([33, 20], 0, 0.1, NEAR, 5, True))
    query, key, value, _ = make_inputs(mask)
    torch.library.opcheck(
        torch.ops.aaa.gathered_attention,
        (query, key, value, mask.keep_BN, mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK,
         mask.edges_BE2, torch.tensor(3), None, SCALING, 0.1),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast(dtype: torch.dtype) -> None:
    mask = learned(random_mask([70, 50], 0, 0.05, NEAR, 0, False))
    *tensors, gradient = make_inputs(mask)
    expected, _ = dense(*tensors, mask, scaling=SCALING)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = gathered(*(x.to(dtype) for x in tensors), mask, scaling=SCALING)
    assert output.dtype == torch.bfloat16
    real_BHN1 = mask.keep_BN[:, None, :, None]
    torch.testing.assert_close(
        output.float() * real_BHN1, expected * real_BHN1, rtol=0.02, atol=0.02
    )
    (output * gradient).sum().backward()
    for tensor in (*tensors, *gates_of(mask).values()):
        assert tensor.grad is not None
        assert tensor.grad.dtype == tensor.dtype
        assert tensor.grad.isfinite().all()


def test_half_precision_is_no_less_exact_than_dense() -> None:
    mask = random_mask([200], 0, 0.05, NEAR, 0, False)
    tensors = [x.detach() for x in make_inputs(mask)[:3]]
    exact, _ = dense(*tensors, mask, scaling=SCALING)
    half = [x.bfloat16() for x in tensors]
    executors: list[Any] = [gathered, dense]
    errors = [
        (execute(*half, mask, scaling=SCALING)[0].float() - exact).abs().mean()
        for execute in executors
    ]
    assert errors[0] <= errors[1] * 1.01


@pytest.mark.parametrize("share", [0.003, 0.9])
def test_training_never_holds_all_cells(share: float) -> None:
    length = 3000  # a chunk is of a fixed size, which must not pass for N x N
    mask = random_mask([length], 0, share, NEAR, 0, False)
    gate = torch.zeros(length, requires_grad=True)
    rows_BHN, columns_BHN = (
        (g + gate) for g in (mask.rows_BHN, mask.columns_BHN) if g is not None
    )
    mask = replace(mask, rows_BHN=rows_BHN, columns_BHN=columns_BHN)
    *tensors, gradient = make_inputs(mask, heads=1)
    with torch.profiler.profile(profile_memory=True) as profile:
        output, _ = gathered(*tensors, mask, scaling=SCALING)
        (output * gradient).sum().backward()
        mask.sparsity().sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < 4 * length**2 / 3


def test_padding_gets_nothing() -> None:
    mask = random_mask([50, 9], 1, 0.1, NEAR, 0, False)
    *tensors, _ = make_inputs(mask)
    output, _ = gathered(*tensors, mask, scaling=SCALING)
    output.sum().backward()
    for tensor in (output, *(x.grad for x in tensors)):
        assert tensor is not None
        assert (tensor[1, :, :41] == 0).all()  # the second text is padded on the left
