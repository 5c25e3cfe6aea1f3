"""The executors, one file each: all mean what ``dense`` means, they differ in speed and memory."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from aaa.attention.auto import auto_attention
from aaa.attention.dense import dense_attention
from aaa.attention.exportable import exportable_attention
from aaa.attention.flex import flex_attention
from aaa.attention.gathered import gathered_attention
from aaa.attention.sdpa import sdpa_attention
from aaa.attention.triton_axis import triton_attention

Executor = Callable[..., tuple[Tensor, Tensor | None]]


EXECUTORS: dict[str, Executor] = {
    "auto": auto_attention,
    "dense": dense_attention,
    "sdpa": sdpa_attention,
    "gathered": gathered_attention,
    "flex": flex_attention,
    "triton": triton_attention,
    "exportable": exportable_attention,
}
