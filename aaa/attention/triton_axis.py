"""Axes and diagonals on GPUs by Triton kernels: one pass, online softmax, O(N) memory.

``aaa.attention.kernels`` says how the cells are divided and has the kernels and their launch; this
file makes one differentiable operator of them, which ``torch.compile`` takes as it is. It can be
imported where Triton cannot.

The kernels are tested against ``dense``, on a GPU if there is one, else in Triton's interpreter;
docs/performance.md has their times on an H100.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from aaa.masks import SparseMask

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GATES = ("rows", "columns", "diagonals")
HOLES = (
    "executor 'triton' takes padding before and behind a text, and this attention mask has zeros "
    "between its ones; use 'auto' or 'sdpa'"
)


def triton_attention(
    query_BHND: Tensor,
    key_BHND: Tensor,
    value_BHND: Tensor,
    mask: SparseMask,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, None]:
    """As ``dense_attention``, in O(N) memory, for masks of rows, columns and diagonals.

    Queries, keys and values get the gradients of ``dense``, under dropout too; so do the gates of
    all diagonals, and those of rows and columns that are open. Closed rows and columns, whose
    cells are not computed, get an unbiased estimate from the cells of 32 random keys and queries,
    as in ``gathered``: exact for texts of no more tokens. float32 is multiplied as
    ``torch.get_float32_matmul_precision()`` says.

    Returns:
        The output, (B, H, N, D), in the dtype of ``value_BHND``, 0 in rows of padding; and no
        probabilities.

    Raises:
        ValueError: if the mask has edges, Triton is not installed, the tensors are not on a GPU,
            or their dtype is none of float32, bfloat16 and float16.
        RuntimeError: if padding lies between real tokens.
    """
    _check(query_BHND, value_BHND, mask)
    num_tokens = query_BHND.shape[2]
    window = num_tokens if mask.window is None else min(mask.window, num_tokens)
    rows_BHN, columns_BHN, diagonals_BHK = mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK
    if rows_BHN is None or columns_BHN is None or diagonals_BHK is None:
        closed_111 = query_BHND.new_zeros(1, 1, 1, dtype=torch.float32)
        closed_11N = closed_111.expand(1, 1, num_tokens)
        rows_BHN = closed_11N if rows_BHN is None else rows_BHN
        columns_BHN = closed_11N if columns_BHN is None else columns_BHN
        diagonals_BHK = closed_111 if diagonals_BHK is None else diagonals_BHK
    seed_1 = torch.randint(2**40, (1,), device=query_BHND.device) if dropout else None
    output_BHND, _, _ = torch.ops.aaa.axis_attention(
        query_BHND.to(value_BHND.dtype),
        key_BHND.to(value_BHND.dtype),
        value_BHND,
        rows_BHN,
        columns_BHN,
        diagonals_BHK[..., : min(window + 1, num_tokens)],
        mask.keep_BN,
        seed_1,
        window,
        scaling,
        dropout,
    )
    return output_BHND, None


def serves(mask: SparseMask, dtype: torch.dtype) -> bool:
    """Whether a mask without holes, on a GPU, is one for the kernels."""
    return mask.edges_BE2 is None and dtype in DTYPES and _is_installed()


def _check(query_BHND: Tensor, value_BHND: Tensor, mask: SparseMask) -> None:
    if mask.edges_BE2 is not None:
        raise ValueError(
            "executor 'triton' serves rows, columns and diagonals, and this mask has single cells "
            "too, as Random, Syntax, Lexical and patterns at a density open them; use 'auto'"
        )
    if not _is_installed():
        raise ValueError("executor 'triton' needs the package triton: pip install triton")
    if not query_BHND.is_cuda and not _is_interpreted():
        raise ValueError(
            f"executor 'triton' runs on GPUs, but the model is on {query_BHND.device}; use 'auto'"
        )
    # Triton's interpreter holds bfloat16 as whole numbers and multiplies those.
    served = [dtype for dtype in DTYPES if query_BHND.is_cuda or dtype != torch.bfloat16]
    if value_BHND.dtype not in served:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in served)
        raise ValueError(f"executor 'triton' computes in {known}, not in {value_BHND.dtype}")


@torch.compiler.assume_constant_result
def _is_installed() -> bool:
    return _found_on_disk()


@lru_cache(maxsize=1)
def _found_on_disk() -> bool:
    return importlib.util.find_spec("triton") is not None


@torch.compiler.assume_constant_result
def _is_interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


# Of one operator: query, key, value, the three gates, keep_BN, seed, window, scaling, dropout.
ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor rows, Tensor columns, Tensor diagonals, "
    "Tensor keep_BN, Tensor? seed, int window, float scaling, float dropout"
)


def _empty_forward(query: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_heads, num_tokens, width = query.shape
    # In memory as the encoder reads it next: (B, N, H, D).
    output = query.new_empty(batch, num_tokens, num_heads, width).transpose(1, 2)
    highest_BHN = query.new_empty(batch, num_heads, num_tokens, dtype=torch.float32)
    return output, highest_BHN, torch.empty_like(highest_BHN)


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    from aaa.attention.kernels.launch import AxisAttention

    results = _empty_forward(*arguments)
    attention = AxisAttention(*arguments)
    # Asked of the device, which is not waited for.
    whole_B = attention.open.whole_B
    torch._assert_async(whole_B if len(whole_B) == 1 else whole_B.all(), HOLES)
    attention.forward(results)
    return results


def _empty_backward(wanted: list[bool], *others: Any) -> tuple[Tensor, ...]:
    """Gradients of inputs and, (B, H, ...), of gates, without elements where not wanted."""
    query, key, value, *gates = others[4:10]
    of_gates = (
        query.new_empty(
            (*query.shape[:2], gate.shape[-1]) if is_wanted else (0,), dtype=torch.float32
        )
        for gate, is_wanted in zip(gates, wanted, strict=True)
    )
    batch, num_heads, num_tokens, width = query.shape
    of_inputs = (
        x.new_empty(batch, num_tokens, num_heads, width).transpose(1, 2)
        for x in (query, key, value)
    )
    return (*of_inputs, *of_gates)


def _backward(wanted: list[bool], *others: Any) -> tuple[Tensor, ...]:
    from aaa.attention.kernels.launch import AxisAttention

    results = _empty_backward(wanted, *others)
    AxisAttention(*others[4:]).backward(others[:4], results)
    return results


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.window, ctx.scaling, ctx.dropout = inputs
    ctx.save_for_backward(*output, *tensors)
    ctx.mark_non_differentiable(*output[1:])


def _gradients(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    output, highest_BHN, log_total_BHN, *inputs = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[3:6])
    of_query, of_key, of_value, *of_gates = torch.ops.aaa.axis_attention_backward(
        wanted, gradient, output, highest_BHN, log_total_BHN,
        *inputs, ctx.window, ctx.scaling, ctx.dropout,
    )  # fmt: skip
    summed = (
        part.sum_to_size(gate.shape).to(gate.dtype) if is_wanted else None
        for part, gate, is_wanted in zip(of_gates, inputs[3:6], wanted, strict=True)
    )
    return (of_query, of_key, of_value, *summed, None, None, None, None, None)


_operator = torch.library.custom_op(
    "aaa::axis_attention",
    _forward,
    mutates_args=(),
    schema=f"({ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
)
_operator.register_fake(_empty_forward)
_operator.register_autograd(_gradients, setup_context=_keep_for_backward)
torch.library.custom_op(
    "aaa::axis_attention_backward",
    _backward,
    mutates_args=(),
    schema="(bool[] wanted, Tensor gradient, Tensor output, Tensor highest, Tensor log_total, "
    f"{ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
).register_fake(_empty_backward)
