"""The executors, one file each: all mean what ``dense`` means, they differ in speed and memory."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from aaa.attention.dense import dense_attention
from aaa.attention.gathered import gathered_attention
from aaa.attention.sdpa import sdpa_attention
from aaa.masks import SparseMask

Executor = Callable[..., tuple[Tensor, Tensor | None]]


def auto_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: SparseMask, **kwargs: float
) -> tuple[Tensor, Tensor | None]:
    """``dense`` where a gate is being learned, ``sdpa`` otherwise."""
    execute = dense_attention if mask.needs_gradient else sdpa_attention
    return execute(query, key, value, mask, **kwargs)


EXECUTORS: dict[str, Executor] = {
    "auto": auto_attention,
    "dense": dense_attention,
    "sdpa": sdpa_attention,
    "gathered": gathered_attention,
}
