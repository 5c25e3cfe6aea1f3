"""Open gates as lists in the device's memory, and what finds them: one launch for each axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096


@dataclass(frozen=True)
class OpenGates:
    """One axis's gates, int8 (B, 1 or H, N), a list of the open tokens, int32, and its length."""

    gates: Tensor
    tokens: Tensor
    counts: Tensor

    @classmethod
    def of(cls, gates_BHN: Tensor, keep_BN: Tensor, closed: bool = False) -> OpenGates:
        """Lists in order the real tokens whose gates are open (above 0), or ``closed``.

        (Nothing waits for the device.)
        """
        batch, num_tokens = keep_BN.shape
        shape = (batch, *gates_BHN.shape[1:])
        found = torch.empty(shape, dtype=torch.int8, device=keep_BN.device)
        tokens = torch.empty(shape, dtype=torch.int32, device=keep_BN.device)
        counts = torch.empty(shape[:2], dtype=torch.int32, device=keep_BN.device)
        gates_BHN = _in_numbers(gates_BHN).expand(shape)
        block = min(BLOCK, max(16, triton.next_power_of_2(num_tokens)))
        _list_kernel[(batch * shape[1],)](
            gates_BHN, _in_numbers(keep_BN), found, tokens, counts,
            *gates_BHN.stride(), *keep_BN.stride(), shape[1], num_tokens,
            CLOSED=closed, BLOCK=block, num_warps=8 if block > 1024 else 4,
        )  # fmt: skip
        return cls(found, tokens, counts)

    @property
    def heads(self) -> int:
        """1 where all heads share the gates."""
        return self.gates.shape[1]


def _in_numbers(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int8) if tensor.dtype == torch.bool else tensor


@triton.jit
def _list_kernel(
    gates, keep, found, tokens, counts, g_b, g_h, g_n, k_b, k_n, num_heads, num_tokens,
    CLOSED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(0).to(tl.int64)
    b, h = bh // num_heads, bh % num_heads
    count = 0
    for first in range(0, num_tokens, BLOCK):
        n = first + tl.arange(0, BLOCK)
        valid = n < num_tokens
        is_wanted = tl.load(gates + b * g_b + h * g_h + n * g_n, mask=valid, other=0) > 0
        if CLOSED:
            is_wanted = is_wanted == 0
        real = tl.load(keep + b * k_b + n * k_n, mask=valid, other=0) != 0
        is_wanted = is_wanted & real
        places = tl.cumsum(is_wanted.to(tl.int32), 0)
        tl.store(found + bh * num_tokens + n, is_wanted.to(tl.int8), mask=valid)
        tl.store(tokens + bh * num_tokens + count + places - 1, n, mask=is_wanted)
        count += tl.max(places)
    tl.store(counts + bh, count)
