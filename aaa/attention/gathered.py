"""Attention that computes the open cells and no others: O(N (k + w) + r N) in time and memory.

For r rows, k columns and diagonals that reach w far. The keys of the columns are gathered, those
of the diagonals lie in a band, which small matrix products of neighbouring queries cover; single
cells, and diagonals that lie alone, have slots. A query's scores with all of these stand side by
side, each cell once, under one softmax. Selected rows are computed whole and put in their place.
The backward pass computes the probabilities again instead of keeping them, so that training keeps
O(N) a layer. It is plain PyTorch, one text after another, without its padding.

Shape suffixes: B batch, H heads, N tokens, D features, M queries of a chunk, X cells of a query.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from aaa.attention.blockwise import Backward, Dropout, QueryKeyValue, forward
from aaa.attention.cells import work_dtype
from aaa.attention.gates import GateGradients, sampled_tokens
from aaa.attention.memory import keep_freed_memory
from aaa.attention.passes import passes_for
from aaa.attention.selection import PARTS, selections
from aaa.masks import SparseMask


def gathered_attention(
    query_BHND: Tensor,
    key_BHND: Tensor,
    value_BHND: Tensor,
    mask: SparseMask,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, None]:
    """As ``dense_attention``, without ever holding N x N cells and without probabilities.

    Gates are 0 or 1. Those that are being learned get the gradient that ``dense`` gives them: open
    gates exactly; closed ones, whose cells are not computed, an unbiased estimate from the cells
    of ``SAMPLED_TOKENS`` random queries and keys (exact for texts of no more tokens, and where so
    much is open that all cells are computed). Rows of padding are 0. There is no second
    derivative.
    """
    if torch.is_autocast_enabled(query_BHND.device.type):
        dtype = torch.get_autocast_dtype(query_BHND.device.type)
        query_BHND, key_BHND, value_BHND = (
            x.to(dtype) for x in (query_BHND, key_BHND, value_BHND)
        )
    random = dropout > 0 or mask.needs_gradient
    seed = torch.randint(2**62, ()) if random else torch.zeros((), dtype=torch.long)
    output_BHND = _attend(
        query_BHND, key_BHND, value_BHND, mask.keep_BN, mask.rows_BHN, mask.columns_BHN,
        mask.diagonals_BHK, mask.edges_BE2, seed, mask.window, scaling, dropout,
    )  # fmt: skip
    return output_BHND, None


# One operator to PyTorch: torch.compile and torch.export keep it whole, since what it computes
# depends on the gates' values.
@torch.library.custom_op("aaa::gathered_attention", mutates_args=())
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor,
    rows: Tensor | None,
    columns: Tensor | None,
    diagonals: Tensor | None,
    edges: Tensor | None,
    seed: Tensor,
    window: int | None,
    scaling: float,
    dropout: float,
) -> Tensor:
    keep_freed_memory()
    output_BHND = _new_like(query)
    mask = SparseMask(keep, rows, columns, diagonals, edges, window)
    drops = Dropout(dropout, seed, query.device)
    with _no_autocast(query.device.type):
        for heads in selections(mask, query.shape[1]):
            text = QueryKeyValue(heads.of(query), heads.of(key), heads.of(value))
            for one in passes_for(heads.selection):
                forward(one, text, heads.of(output_BHND), scaling, drops)
    return output_BHND


@_attend.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return _new_like(query)


@torch.library.custom_op("aaa::gathered_attention_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor,
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor,
    rows: Tensor | None,
    columns: Tensor | None,
    diagonals: Tensor | None,
    edges: Tensor | None,
    seed: Tensor,
    window: int | None,
    scaling: float,
    dropout: float,
    learned: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    mask = SparseMask(keep, rows, columns, diagonals, edges, window)
    dtype = work_dtype(query)
    of_query, of_key, of_value = (_new_like(x, dtype) for x in (query, key, value))
    of_gates = GateGradients(mask, dict(zip(PARTS, learned, strict=True)))
    drops = Dropout(dropout, seed, query.device)
    samples = torch.Generator(query.device).manual_seed(int(seed) + 1)
    with _no_autocast(query.device.type):
        for heads in selections(mask, query.shape[1]):
            passes = passes_for(heads.selection)
            backward = Backward(
                QueryKeyValue(heads.of(query), heads.of(key), heads.of(value)),
                QueryKeyValue(heads.of(of_query), heads.of(of_key), heads.of(of_value)),
                heads.of(output), heads.of(gradient), of_gates.of_heads(heads),
                sampled_tokens(heads.selection.num_tokens, samples, query.device), scaling, drops,
            )  # fmt: skip
            for one in passes:
                backward.run(one)
            backward.estimate_closed_gates(passes)
    of_query, of_key, of_value = (x.to(query.dtype) for x in (of_query, of_key, of_value))
    of_rows, of_columns, of_diagonals = (
        of_gates.of[name] if name in of_gates.of else query.new_empty(0) for name in PARTS
    )
    return of_query, of_key, of_value, of_rows, of_columns, of_diagonals


@_attend_backward.register_fake
def _(gradient: Tensor, output: Tensor, query: Tensor, key: Tensor, value: Tensor, keep: Tensor,
      rows: Any, columns: Any, diagonals: Any, edges: Any, seed: Tensor, window: Any,
      scaling: float, dropout: float, learned: list[bool]) -> Any:  # fmt: skip
    gates = (
        torch.empty_like(gate) if wanted else query.new_empty(0)
        for gate, wanted in zip((rows, columns, diagonals), learned, strict=True)
    )
    return (*(_new_like(x) for x in (query, key, value)), *gates)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, window, scaling, dropout = inputs
    ctx.save_for_backward(output, *tensors)
    ctx.settings = (window, scaling, dropout)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    learned = list(ctx.needs_input_grad[4:7])
    of_query, of_key, of_value, *of_gates = _attend_backward(
        gradient, *ctx.saved_tensors, *ctx.settings, learned
    )
    gates = (
        of_gate if wanted else None for of_gate, wanted in zip(of_gates, learned, strict=True)
    )
    return (of_query, of_key, of_value, None, *gates, *[None] * 5)


_attend.register_autograd(_backward, setup_context=_keep)


def _no_autocast(device: str) -> AbstractContextManager[object]:
    """Only where there is something to turn off, which takes a short text 2 % of its attention."""
    return (
        torch.autocast(device, enabled=False)
        if torch.is_autocast_enabled(device)
        else nullcontext()
    )


def _new_like(tensor_BHND: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros, laid out so that the heads' outputs are joined without a copy."""
    batch, heads, num_tokens, size = tensor_BHND.shape
    return tensor_BHND.new_zeros(batch, num_tokens, heads, size, dtype=dtype).transpose(1, 2)
