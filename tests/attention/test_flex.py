"""``flex`` and its map of blocks; how it computes is checked without compiling, which is slow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._inductor.exc import InductorError

from aaa import Global, Local, Random, sparsify
from aaa.attention.dense import dense_attention
from aaa.attention.flex import BLOCK, WholeBlocks, flex_attention, touched_blocks
from aaa.masks import SparseMask
from aaa.patterns import LayerInput, Pattern
from tests.conftest import EncoderFactory
from tests.reference import keep_of

HEADS, SCALING = 2, 0.3


@pytest.fixture
def _not_compiled() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without")
        yield


@st.composite
def long_masks(draw: st.DrawFn) -> SparseMask:
    """Over one to five blocks; dense enough in places for whole blocks to be open."""
    lengths = draw(st.lists(st.integers(0, 600), min_size=1, max_size=2))
    keep_BN = keep_of([*lengths, 1], draw(st.booleans()))
    batch, num_tokens = keep_BN.shape
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    share = draw(st.sampled_from([0.0, 0.01, 1.0]))
    heads = draw(st.sampled_from([1, HEADS]))
    rows, columns = torch.rand(2, batch, heads, num_tokens, generator=generator) < share
    diagonals = torch.zeros(1, heads, draw(st.integers(1, num_tokens + 3)))
    opened = draw(st.integers(1, diagonals.shape[-1]))
    diagonals[..., :opened] = 1
    diagonals[..., draw(st.integers(0, diagonals.shape[-1] - 1))] = 1
    edges_BE2 = None
    if draw(st.booleans()):
        cells = torch.randperm(num_tokens**2, generator=generator)[:300]
        edges_BE2 = torch.stack([cells // num_tokens, cells % num_tokens], -1).unsqueeze(0)
        edges_BE2 = F.pad(edges_BE2, (0, 0, 0, 2), value=-1)
    window = draw(st.none() | st.sampled_from([0, 100, 255, 500]))
    return SparseMask(keep_BN, rows.float(), columns.float(), diagonals, edges_BE2, window)


@given(mask=long_masks())
def test_blocks_are_those_of_the_cells(mask: SparseMask) -> None:
    whole = WholeBlocks.of(mask, HEADS)
    partial, full = touched_blocks(whole)
    extra = whole.keep_BN.shape[1] - mask.keep_BN.shape[1]
    cells = F.pad(mask.dense(), (0, extra, 0, extra)).expand(-1, HEADS, -1, -1)
    by_block = cells.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))
    some, every = by_block.amax((-3, -1)) > 0, by_block.amin((-3, -1)) > 0
    assert not (some & ~(partial | full)).any()
    assert not (full & ~every).any()
    assert not (partial & full).any()
    # A block may be looked at in vain where padding covers what would be open in it; not often.
    assert ((partial | full) & ~some).sum() <= 2 * len(mask.keep_BN) * partial.shape[-1] * HEADS


@pytest.mark.usefixtures("_not_compiled")
@settings(max_examples=15)
@given(mask=long_masks())
def test_output_is_that_of_dense(mask: SparseMask) -> None:
    real = mask.keep_BN[:, None, :, None]
    query, key, value = torch.randn(3, len(mask.keep_BN), HEADS, mask.keep_BN.shape[1], 8)
    expected, _ = dense_attention(query, key, value, mask, scaling=SCALING)
    output, _ = flex_attention(query, key, value, mask, scaling=SCALING)
    torch.testing.assert_close(output, expected * real, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_not_compiled")
def test_an_encoder_under_autocast(make_encoder: EncoderFactory) -> None:
    batch = {"input_ids": torch.randint(5, 30, (2, 20))}
    batch["attention_mask"] = keep_of([20, 11]).long()
    outputs = []
    for executor in ("dense", "flex"):
        torch.manual_seed(0)
        model = sparsify(make_encoder(), Local(1) | Global(1) | Random(1), executor=executor)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            outputs.append(model(**batch).logits.float())
    torch.testing.assert_close(*outputs, rtol=0.02, atol=0.02)


def test_refusals() -> None:
    mask = Local(1)(LayerInput(keep_of([6])))
    query, key, value = torch.randn(3, 1, HEADS, 6, 8, requires_grad=True)
    with pytest.raises(ValueError, match="no attention dropout"):
        flex_attention(query, key, value, mask, scaling=SCALING, dropout=0.1)
    with pytest.raises(ValueError, match="no gradient on cpu, only on GPUs"):
        flex_attention(query, key, value, mask, scaling=SCALING)
    learned = SparseMask(mask.keep_BN, rows_BHN=torch.ones(1, 1, 6, requires_grad=True))
    with pytest.raises(ValueError, match="being learned"):
        flex_attention(query, key, value, learned, scaling=SCALING)


@pytest.mark.slow
@pytest.mark.skipif(
    " " in torch.__file__, reason="torch's C++ backend compiles nothing from a path with a space"
)
def test_one_compilation_serves_all_lengths() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    difference: list[Tensor] = []
    for lengths in ([300, 100, 250], [640, 639, 2, 1], [50, 3], [900] * 5):
        mask = (Local(2) | Global(2))(LayerInput(keep_of(lengths)))
        query, key, value = torch.randn(3, len(lengths), HEADS, max(lengths), 16)
        with torch.inference_mode():
            output, _ = flex_attention(query, key, value, mask, scaling=SCALING)
            expected, _ = dense_attention(query, key, value, mask, scaling=SCALING)
        difference.append((output - expected * mask.keep_BN[:, None, :, None]).abs().max())
    assert max(difference) < 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.skipif(
    " " in torch.__file__, reason="torch's C++ backend compiles nothing from a path with a space"
)
@pytest.mark.parametrize("pattern", [Local(2) | Global(1), Local(2) | Random(1)], ids=str)
def test_models_of_several_sizes_in_one_process(pattern: Pattern) -> None:
    torch._dynamo.reset()
    for heads, width in ((2, 16), (4, 16), (2, 32)):
        mask = pattern(LayerInput(keep_of([300, 200])))
        query, key, value = torch.randn(3, 2, heads, 300, width)
        with torch.inference_mode():
            output, _ = flex_attention(query, key, value, mask, scaling=SCALING)
            expected, _ = dense_attention(query, key, value, mask, scaling=SCALING)
        expected = expected * mask.keep_BN[:, None, :, None]
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_what_torch_cannot_compile_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise InductorError(RuntimeError("no such name"), None)

    monkeypatch.setattr("aaa.attention.flex._compiled", lambda: fail)
    mask = Local(1)(LayerInput(keep_of([6])))
    query, key, value = torch.randn(3, 1, HEADS, 6, 8)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="use 'auto'"):
        flex_attention(query, key, value, mask, scaling=SCALING)
