"""The Triton kernels against ``dense``: in Triton's interpreter, or on a GPU if there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aaa import Axis, Global, Local, sparsify, sparsity_loss
from aaa.attention import EXECUTORS, triton_axis
from aaa.attention.dense import dense_attention
from aaa.attention.triton_axis import triton_attention
from aaa.masks import SparseMask
from aaa.patterns import LayerInput, Random
from aaa.sparse import latest_masks
from tests.conftest import EncoderFactory
from tests.reference import keep_of

triton = pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Triton's interpreter cannot multiply bfloat16.
SIXTEEN_BITS = [torch.float16] + [torch.bfloat16] * (DEVICE.type == "cuda")
SCALING, GATES = 0.4, ("rows_BHN", "columns_BHN", "diagonals_BHK")


def axis_mask(
    lengths: list[int],
    heads: int = 2,
    share: float = 0.15,
    num_diagonals: int = 4,
    window: int | None = None,
    left: bool = False,
    seed: int = 0,
) -> SparseMask:
    """Rows and columns of each text's and head's own, and some diagonals of each head's."""
    keep_BN = keep_of(lengths, left)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), heads, keep_BN.shape[1])
    rows, columns = (torch.rand(2, *shape, generator=generator) < share).float()
    diagonals = (torch.rand(1, heads, num_diagonals, generator=generator) < 0.5).float()
    diagonals[..., 0] = 1
    rows, columns, diagonals = (x.to(DEVICE).requires_grad_() for x in (rows, columns, diagonals))
    return SparseMask(keep_BN.to(DEVICE), rows, columns, diagonals, window=window)


Inputs = tuple[Tensor, Tensor, Tensor]


def inputs_for(mask: SparseMask, heads: int = 2, width: int = 8, scale: float = 1) -> Inputs:
    shape = (3, len(mask.keep_BN), heads, mask.keep_BN.shape[1], width)
    query, key, value = (torch.randn(shape) * scale).to(DEVICE).unbind()
    return query.requires_grad_(), key.requires_grad_(), value.requires_grad_()


def gates_of(mask: SparseMask) -> list[Tensor]:
    """Those of rows, columns and diagonals that there are."""
    gates = (mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK)
    return [gate for gate in gates if gate is not None]


def both(mask: SparseMask, inputs: Inputs, **options: Any) -> list[dict[str, Tensor]]:
    """Outputs and all gradients, of ``dense`` and of the kernels; rows of padding are left out."""
    gates = {name: getattr(mask, name) for name in GATES if getattr(mask, name) is not None}
    wanted = dict(zip(("query", "key", "value"), inputs, strict=True)) | {
        name: gate for name, gate in gates.items() if gate.requires_grad
    }
    weights = torch.randn(inputs[0].shape, device=DEVICE) * mask.keep_BN[:, None, :, None]
    results = []
    for execute in (dense_attention, triton_attention):
        output, _ = execute(*inputs, mask, scaling=SCALING, **options)
        gradients = torch.autograd.grad((output * weights).sum(), list(wanted.values()))
        results.append(dict(zip(wanted, gradients, strict=True)))
        results[-1]["output"] = output.detach() * mask.keep_BN[:, None, :, None]
    return results


def assert_alike(results: list[dict[str, Tensor]]) -> None:
    for name, expected in results[0].items():
        scale = float(expected.abs().max().clamp_min(1))
        torch.testing.assert_close(
            results[1][name] / scale, expected / scale, rtol=1e-5, atol=1e-5, msg=name
        )


CASES = {
    "several tiles": axis_mask([32, 20]),
    "few rows and columns, whose walks are divided": axis_mask([32, 27], share=0.08, seed=10),
    "padding on the left": axis_mask([9, 21], left=True, seed=1),
    "one token": axis_mask([1, 1], seed=2),
    "all rows": axis_mask([18], share=1.0),
    "nothing but diagonals": axis_mask([20], heads=1, share=0.0, num_diagonals=19),
    "a window": axis_mask([30], window=9, share=0.2, seed=3),
    "an empty text": axis_mask([0, 5], seed=4),
}


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_dense(case: str) -> None:
    mask = CASES[case]
    heads = 1 if case == "nothing but diagonals" else 2
    inputs = inputs_for(mask, heads, width=5 if case == "one token" else 8)
    results = both(mask, inputs)
    assert_alike(results)
    assert all(tensor.isfinite().all() for tensor in results[1].values())


@pytest.mark.parametrize("missing", GATES)
def test_a_part_that_is_missing_and_heads_that_share_gates(missing: str) -> None:
    mask = axis_mask([19], heads=1, seed=5)
    parts: dict[str, Any] = {missing: None}
    if missing == "diagonals_BHK":  # no row may be empty
        parts["columns_BHN"] = torch.ones(1, 1, 19, device=DEVICE, requires_grad=True)
    mask = replace(mask, **parts)
    assert_alike(both(mask, inputs_for(mask)))


def test_closed_gates_of_long_texts_are_estimated_without_bias(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a sample of one token: the mean over all tokens that it can be is exact."""
    monkeypatch.setattr("aaa.attention.kernels.launch.SAMPLED_TOKENS", 1)
    mask = axis_mask([5], heads=1, share=0.4, num_diagonals=1)
    inputs = inputs_for(mask, heads=1)
    weights = torch.randn(inputs[0].shape, device=DEVICE)
    gates = gates_of(mask)[:2]
    output, _ = dense_attention(*inputs, mask, scaling=SCALING)
    exact = torch.autograd.grad((output * weights).sum(), gates)
    output, _ = triton_attention(*inputs, mask, scaling=SCALING)
    drawn = []
    for order in torch.eye(5, device=DEVICE).view(5, 1, 5):
        monkeypatch.setattr(torch, "rand", lambda *_, order=order, **__: order)
        drawn.append(
            torch.autograd.grad((output * weights).sum(), gates, retain_graph=True),
        )
    for gate, expected, estimates in zip(gates, exact, zip(*drawn, strict=True), strict=True):
        stacked = torch.stack(estimates)
        torch.testing.assert_close(stacked.mean(0), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(stacked.std(0) > 1e-4, gate == 0)  # open gates are not sampled


def test_dropout_is_one_draw_forward_and_backward() -> None:
    """With the identity for values the output is the dropped probabilities themselves."""
    mask = axis_mask([16, 11], seed=7)
    inputs = inputs_for(mask, width=16)
    query, key, _ = inputs
    value = torch.eye(16, device=DEVICE).expand(2, 2, 16, 16).clone().requires_grad_()
    dropped, _ = triton_attention(query, key, value, mask, scaling=SCALING, dropout=0.4)
    probabilities, _ = dense_attention(query, key, value, mask, scaling=SCALING)
    real = mask.keep_BN[:, None, :, None]
    kept = dropped.detach() / probabilities.detach().clamp_min(1e-9) * real
    opened = (mask.dense() > 0).expand_as(kept)
    assert torch.isclose(kept[opened].unique().mul(0.6).round(), kept[opened].unique() * 0.6).all()
    assert 0.4 < (kept[opened] > 0).float().mean() < 0.8
    # (Closed cells have a dropout of their own, which only their gates' gradients see.)
    wanted = [query, key, value]
    weights = torch.randn_like(dropped) * real
    actual = torch.autograd.grad((dropped * weights).sum(), wanted)
    expected = torch.autograd.grad(((probabilities * kept) @ value * weights).sum(), wanted)
    for one, other in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    transposed = (probabilities * kept).detach().mT @ weights
    torch.testing.assert_close(actual[2], transposed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_sixteen_bits(dtype: torch.dtype) -> None:
    mask = axis_mask([17], heads=1, seed=8)
    inputs = inputs_for(mask, heads=1)
    expected, _ = dense_attention(*inputs, mask, scaling=SCALING)
    output, _ = EXECUTORS["triton"](*(x.to(dtype) for x in inputs), mask, scaling=SCALING)
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), expected, rtol=0.02, atol=0.02)
    gradients = torch.autograd.grad(output.float().square().sum(), [*inputs, *gates_of(mask)])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_huge_scores() -> None:
    mask = axis_mask([12], heads=1, seed=9)
    dense, kernels = both(mask, inputs_for(mask, heads=1, scale=30))
    # float32 scores of 1e4 are only good to 1e-3.
    torch.testing.assert_close(kernels["output"], dense["output"], rtol=1e-2, atol=1e-2)
    assert all(tensor.isfinite().all() for tensor in kernels.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_encoder_in_training(make_encoder: EncoderFactory, checkpointing: bool) -> None:
    """Under autocast as well; gradient checkpointing runs the kernels again."""
    gradients = []
    ids_BN = torch.randint(5, 30, (2, 9)).to(DEVICE)
    for executor in ("dense", "triton"):
        torch.manual_seed(0)
        model = make_encoder(num_hidden_layers=1, hidden_dropout_prob=0.0,
                             attention_probs_dropout_prob=0.0)  # fmt: skip
        model = sparsify(model, Axis() | Local(1), executor=executor).to(DEVICE).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with torch.autocast(DEVICE.type, SIXTEEN_BITS[-1], enabled=not checkpointing):
            torch.manual_seed(1)
            loss = model(input_ids=ids_BN, labels=torch.tensor([0, 1]).to(DEVICE)).loss
            (loss + sparsity_loss(model, target=0.9)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, expected in gradients[0].items():
        tolerance = 1e-4 if checkpointing else 0.05
        # (A key's bias moves no softmax: its gradient is rounding.)
        if expected is not None and not name.endswith("key.bias"):
            scale = float(expected.abs().max().clamp_min(1e-2))
            torch.testing.assert_close(
                gradients[1][name] / scale, expected / scale, rtol=0, atol=tolerance, msg=name
            )


def test_torch_compile_takes_the_kernels_as_one_operator() -> None:
    mask = (Local(1) | Global(1))(LayerInput(keep_of([14]).to(DEVICE)))

    @torch.compile(backend="aot_eager", fullgraph=True)
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return triton_attention(query, key, value, mask, scaling=SCALING)[0]

    inputs = inputs_for(mask)
    expected = triton_attention(*inputs, mask, scaling=SCALING)[0]
    output = attend(*inputs)
    torch.testing.assert_close(output, expected)
    actual = torch.autograd.grad(output.square().sum(), inputs)
    torch.testing.assert_close(actual, torch.autograd.grad(expected.square().sum(), inputs))


def test_a_compiled_encoder_is_one_graph(make_encoder: EncoderFactory) -> None:
    """And its masks are those of its latest pass."""
    model = sparsify(make_encoder(num_hidden_layers=1), Axis() | Local(1), executor="triton")
    model = model.to(DEVICE).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("row.weight"):
            torch.nn.init.normal_(parameter)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(2):
        ids_BN = torch.randint(5, 30, (2, 7), device=DEVICE)
        with torch.inference_mode():
            output, rows = compiled(input_ids=ids_BN).logits, latest_masks(model)[0].rows_BHN
            torch.testing.assert_close(output, model(input_ids=ids_BN).logits)
        assert torch.equal(rows, latest_masks(model)[0].rows_BHN)  # type: ignore[arg-type]


def test_the_operator_keeps_torchs_rules() -> None:
    mask = axis_mask([5], heads=1)
    with torch.no_grad():
        seed = torch.zeros(1, dtype=torch.long, device=DEVICE)
        inputs = (*inputs_for(mask, heads=1), *(getattr(mask, name) for name in GATES))
        torch.library.opcheck(
            torch.ops.aaa.axis_attention, (*inputs, mask.keep_BN, seed, 5, SCALING, 0.0),
            test_utils=("test_schema", "test_faketensor"),
        )  # fmt: skip


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = Random(2)(LayerInput(keep_of([6]).to(DEVICE)))
    inputs = inputs_for(mask)
    with pytest.raises(ValueError, match="single cells"):
        EXECUTORS["triton"](*inputs, mask, scaling=SCALING)
    mask = Local(1)(LayerInput(keep_of([6]).to(DEVICE)))
    with pytest.raises(ValueError, match=r"float16, not in torch\.float64"):
        EXECUTORS["triton"](*(x.double() for x in inputs), mask, scaling=SCALING)
    if DEVICE.type == "cpu":  # a device's assertion ends its process
        holes = SparseMask(torch.arange(6).unsqueeze(0) != 2, diagonals_BHK=torch.ones(1, 1, 2))
        with pytest.raises(RuntimeError, match="zeros between its ones"):
            EXECUTORS["triton"](*inputs, holes, scaling=SCALING)
        monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
        with pytest.raises(ValueError, match="runs on GPUs, but the model is on cpu"):
            triton_attention(*inputs, mask, scaling=SCALING)
    monkeypatch.setattr(triton_axis, "_is_installed", lambda: False)
    with pytest.raises(ValueError, match="pip install triton"):
        triton_attention(*inputs, mask, scaling=SCALING)


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from aaa.attention.kernels import launch, lists

types = dict.fromkeys(("gates", "keep", "whole"), "*i8")
types |= dict.fromkeys(("lists", "counts", "spans", "sample", "sample_counts"), "*i32")
types |= dict.fromkeys(("highests", "log_totals", "deltas", "of_gates", "parts"), "*fp32")
types |= dict.fromkeys(("rows", "columns", "diagonals"), "*fp32")
types |= dict.fromkeys(("query", "key", "value", "gradient", "output"), "*bf16")
types |= dict.fromkeys(("of_queries", "of_keys", "of_values", "sums", "more_sums"), "*bf16")
types |= {"seeds": "*i64", "scaling": "fp32", "dropout": "fp32"}
constants = {"D": 64, "BLOCK_D": 64, "BLOCK_Q": 64, "BLOCK_K": 64, "BLOCK": 64, "AXIS": 0}
constants |= {"PRECISION": "ieee", "DROPOUT": False, "SAMPLED": True}
constants |= {"WINDOWED": False, "NARROW": True}
kernels = [value for name, value in vars(launch).items() if name.endswith("_kernel")]
for kernel in [*kernels, lists.list_kernel]:
    chosen = {arg: constants[arg] for arg in kernel.arg_names if arg in constants}
    signature = {arg: types.get(arg, "i32") for arg in kernel.arg_names}
    signature |= dict.fromkeys(chosen, "constexpr")
    source = ASTSource(kernel, signature, constexprs=chosen)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    fits = compiled.metadata.shared < 227 * 1024
    print(kernel.fn.__name__, len(compiled.asm["cubin"]) > 0, fits)
"""


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """To machine code of sm_90: what the interpreter lets pass, the compiler may not."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == 8
    assert all(line.endswith("True True") for line in lines), done.stdout
