"""That nothing of an attention is made on the CPU where its tensors are elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from aaa import Axis, Degree, Diagonal, Global, Local, Pattern, Random, sparsify
from aaa.attention import gates, passes
from aaa.attention.gathered import gathered_attention
from aaa.masks import SparseMask
from tests.encoders import SHAPE
from tests.other_device import OtherDevice, other_device, to_cpu, to_other
from tests.reference import keep_of

GATES = ("rows_BHN", "columns_BHN", "diagonals_BHK")
PARTS = ("keep_BN", *GATES, "edges_BE2")


def test_devices_that_are_mixed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with other_device(monkeypatch):
        theirs = to_other(torch.ones(3))
        assert not (theirs + 1).is_cpu
        assert to_cpu(theirs + torch.arange(3, device=theirs.device)).tolist() == [1, 2, 3]
        with pytest.raises(RuntimeError, match="two devices"):
            theirs + torch.arange(3)


def any_mask(seed: int) -> SparseMask:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.rand(2, 2, 1 + 2 * (seed % 2), 90, generator=generator) < 0.1).float()
    diagonals = torch.ones(1, 1, 3)
    if seed % 3 == 1:
        diagonals = (torch.rand(1, 3, 90, generator=generator) < 0.2).float()
        diagonals[..., 0] = 1
    edges_BE2 = None
    if seed % 4 == 2:
        cells_E = torch.randperm(90**2, generator=generator)[:200]
        edges_BE2 = torch.stack([cells_E // 90, cells_E % 90], dim=-1).unsqueeze(0)
    lengths = [90, 90] if seed % 2 else [90, 61]
    window = 20 if seed % 5 == 4 else None
    return SparseMask(keep_of(lengths), rows, columns, diagonals, edges_BE2, window)


def results(
    mask: SparseMask,
    tensors: Tensor,
    to: Callable[[Tensor], Tensor],
    learn: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """The output of ``gathered`` and the gradients of its inputs, and of its gates if they learn.

    Args:
        tensors: query, key, value and the output's gradient.
        to: takes each tensor to a device.
    """
    parts = {name: getattr(mask, name) for name in PARTS}
    there: dict[str, Any] = {name: to(x) for name, x in parts.items() if x is not None}
    own = replace(mask, **there)
    *inputs, of_output = (to(tensor.to(dtype)) for tensor in tensors)
    query, key, value = wanted = [tensor.requires_grad_() for tensor in inputs]
    if learn:
        wanted = wanted + [getattr(own, name).requires_grad_() for name in GATES]
    output, _ = gathered_attention(query, key, value, own, 0.3)
    gradients = torch.autograd.grad(output, wanted, of_output)
    return [to_cpu(tensor) for tensor in (output, *gradients)]


def tensors_for(seed: int) -> Tensor:
    return torch.randn(4, 2, 3, 90, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_gathered(monkeypatch: pytest.MonkeyPatch, seed: int, learn: bool) -> None:
    monkeypatch.setattr(gates, "SAMPLED_TOKENS", 10_000)
    if seed % 2:
        monkeypatch.setattr(passes, "NUMBERS_AT_ONCE", 2**11)
    mask, tensors = any_mask(seed), tensors_for(seed)
    on_cpu = results(mask, tensors, torch.clone, learn)
    with other_device(monkeypatch):
        elsewhere = results(mask, tensors, to_other, learn)
    for ours, expected in zip(elsewhere, on_cpu, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(4))
def test_gathered_in_sixteen_bits(
    monkeypatch: pytest.MonkeyPatch, seed: int, dtype: torch.dtype
) -> None:
    """Where products are of the inputs' dtype, as they are not on a CPU."""
    mask, tensors = any_mask(seed), tensors_for(seed)
    expected = results(mask, tensors, torch.clone)
    with other_device(monkeypatch):
        elsewhere = results(mask, tensors, to_other, dtype=dtype)
    for ours, wanted in zip(elsewhere, expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), wanted, rtol=0.05, atol=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gathered_on_a_gpu(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(gates, "SAMPLED_TOKENS", 10_000)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for seed in range(10):
        mask, tensors = any_mask(seed), tensors_for(seed)
        learn = dtype == torch.float32
        on_gpu = results(mask, tensors, lambda x: x.cuda(), learn, dtype)
        for ours, wanted in zip(on_gpu, results(mask, tensors, torch.clone, learn), strict=True):
            torch.testing.assert_close(ours.float(), wanted, rtol=tolerance, atol=tolerance)


PATTERNS: list[Pattern] = [
    Axis() | Local(2),
    Local(1) | Global(2) | Random(3),
    Local(0) | Diagonal("layer"),
    Local(0) | Degree(8),
]
FOR_LEARNING = ["dense", "gathered", "auto"]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize(
    ("executor", "training"),
    [(name, training) for name in FOR_LEARNING for training in (False, True)]
    + [("sdpa", False), ("exportable", False)],
)
def test_models(
    monkeypatch: pytest.MonkeyPatch, pattern: Pattern, executor: str, training: bool
) -> None:
    text = torch.randint(5, 60, (2, 40), generator=torch.Generator().manual_seed(0))
    real = keep_of([40, 25]).long()

    def output(elsewhere: bool) -> Tensor:
        shape = {name: value for name, value in SHAPE.items() if name != "num_labels"}
        no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        torch.manual_seed(0)
        model = sparsify(BertModel(BertConfig(**shape, **no_dropout)), pattern, executor)
        model.train(training)
        with other_device(monkeypatch) if elsewhere else nullcontext():
            if elsewhere:
                model._apply(lambda x: x if isinstance(x, OtherDevice) else to_other(x))
            ids, mask = (to_other(x) if elsewhere else x for x in (text, real))
            torch.manual_seed(1)
            states = model(input_ids=ids, attention_mask=mask).last_hidden_state
            if training:
                states.square().sum().backward()
            return to_cpu(states)

    torch.testing.assert_close(output(elsewhere=True), output(elsewhere=False))
