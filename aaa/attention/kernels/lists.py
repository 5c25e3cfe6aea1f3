"""Open gates as lists in the device's memory, and the kernel that finds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096  # tokens looked at a time


@dataclass(frozen=True)
class OpenGates:
    """Rows' and columns' gates, as the kernels read them (``aaa.attention.kernels``).

    Args:
        gates: int8 (2, B, L, N), rows before columns.
        tokens, counts: the open ones in order, int32 (2, B, L, N), and how many there are.
        spans: the first real token of each text and the one after the last, int32 (B, 2).
        whole_B: which texts have no padding between real tokens, bool (B).
    """

    gates: Tensor
    tokens: Tensor
    counts: Tensor
    spans: Tensor
    whole_B: Tensor

    @classmethod
    def of(cls, rows_BHN: Tensor, columns_BHN: Tensor, keep_BN: Tensor) -> OpenGates:
        """Lists the real tokens whose gates are open (above 0), without waiting for the device."""
        batch, num_tokens = keep_BN.shape
        heads = max(rows_BHN.shape[1], columns_BHN.shape[1])
        rows, columns = (x.expand(batch, heads, num_tokens) for x in (rows_BHN, columns_BHN))
        made = cls(
            keep_BN.new_empty(2, batch, heads, num_tokens, dtype=torch.int8),
            keep_BN.new_empty(2, batch, heads, num_tokens, dtype=torch.int32),
            keep_BN.new_empty(2, batch, heads, dtype=torch.int32),
            keep_BN.new_empty(batch, 2, dtype=torch.int32),
            keep_BN.new_empty(batch),
        )
        block = min(BLOCK, max(16, triton.next_power_of_2(num_tokens)))
        list_kernel[(2, batch * heads)](
            rows, columns, keep_BN.view(torch.int8), made.gates, made.tokens, made.counts,
            made.spans, made.whole_B.view(torch.int8),
            *rows.stride(), *columns.stride(), *keep_BN.stride(), heads, num_tokens,
            BLOCK=block, num_warps=8 if block > 1024 else 4,
        )  # fmt: skip
        return made

    @property
    def heads(self) -> int:
        """1 where all heads share the gates."""
        return self.gates.shape[2]


@triton.jit
def list_kernel(
    rows, columns, keep, gates, lists, counts, spans, whole,
    r_b, r_h, r_n, c_b, c_h, c_n, k_b, k_n, list_heads, num_tokens, BLOCK: tl.constexpr,
):  # fmt: skip
    """One list: of the rows of a text and head, or of its columns."""
    axis = tl.program_id(0)
    bh = tl.program_id(1).to(tl.int64)
    b, h = bh // list_heads, bh % list_heads
    rows += b * r_b + h * r_h
    columns += b * c_b + h * c_h
    keep += b * k_b
    own = axis * tl.num_programs(1) + bh
    count, real_tokens = 0, 0
    start, end = num_tokens, 0
    for first in range(0, num_tokens, BLOCK):
        n = first + tl.arange(0, BLOCK)
        valid = n < num_tokens
        real = tl.load(keep + n * k_n, mask=valid, other=0) != 0
        if axis == 0:
            opened = tl.load(rows + n * r_n, mask=real, other=0) > 0
        else:
            opened = tl.load(columns + n * c_n, mask=real, other=0) > 0
        places = tl.cumsum(opened.to(tl.int32), 0)
        tl.store(gates + own * num_tokens + n, opened.to(tl.int8), mask=valid)
        tl.store(lists + own * num_tokens + count + places - 1, n, mask=opened)
        count += tl.max(places, 0)
        real_tokens += tl.sum(real.to(tl.int32), 0)
        start = tl.minimum(start, tl.min(tl.where(real, n, num_tokens), 0))
        end = tl.maximum(end, tl.max(tl.where(real, n + 1, 0), 0))
    tl.store(counts + own, count)
    if (axis == 0) & (h == 0):
        tl.store(spans + 2 * b, tl.minimum(start, end))
        tl.store(spans + 2 * b + 1, end)
        tl.store(whole + b, (real_tokens == tl.maximum(end - start, 0)).to(tl.int8))
