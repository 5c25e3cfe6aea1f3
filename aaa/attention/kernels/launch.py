"""Launches the kernels for one batch at one layer.

Shape suffixes: S sampled tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from aaa.attention.gates import SAMPLED_TOKENS
from aaa.attention.kernels.backward import key_gradient_kernel, query_gradient_kernel
from aaa.attention.kernels.forward import forward_kernel
from aaa.attention.kernels.gates import axis_gradient_kernel, diagonal_gradient_kernel

INTERPRETED_BLOCK = 16


@dataclass(frozen=True)
class OpenGates:
    """One axis's gates, int8 (B, 1 or H, N), a list of the open tokens, int32, and its length."""

    gates: Tensor
    tokens: Tensor
    counts: Tensor

    @classmethod
    def of(cls, open_BHN: Tensor) -> OpenGates:
        """Lists the open ones in order, without waiting for the device."""
        num_tokens = open_BHN.shape[-1]
        slots = torch.where(open_BHN, open_BHN.cumsum(-1) - 1, num_tokens)
        tokens = torch.arange(num_tokens, device=open_BHN.device).expand(open_BHN.shape)
        lists = torch.zeros_like(F.pad(tokens, (0, 1))).scatter(-1, slots, tokens)
        return cls(
            open_BHN.to(torch.int8).contiguous(),
            lists[..., :num_tokens].int().contiguous(),
            open_BHN.sum(-1, dtype=torch.int32),
        )

    @property
    def heads(self) -> int:
        """1 where all heads share the gates."""
        return self.gates.shape[1]


class AxisAttention:
    """Attention of queries, keys and values, (B, H, N, D), under rows, columns and diagonals."""

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor,
        diagonals: Tensor, keep_BN: Tensor, seed: Tensor, window: int, scaling: float,
        dropout: float,
    ) -> None:  # fmt: skip
        self.inputs = tuple(_with_unit_stride(x) for x in (query, key, value))
        self.batch, self.num_heads, self.num_tokens, self.width = query.shape
        self.keep_B1N = keep_BN.unsqueeze(1)
        self.rows = OpenGates.of((rows > 0) & self.keep_B1N)
        self.columns = OpenGates.of((columns > 0) & self.keep_B1N)
        self.diagonals = (diagonals > 0).expand(self.batch, -1, -1).to(torch.int8).contiguous()
        start_B = keep_BN.int().argmax(-1)
        self.spans = torch.stack([start_B, start_B + keep_BN.sum(-1)], -1).int().contiguous()
        self.seed, self.window = seed, window
        self.scaling, self.dropout = scaling, dropout

    def forward(self, results: tuple[Tensor, ...]) -> None:
        """Fills the output, each query's largest open score, and its log-sum-exp."""
        blocks = _blocks(self.inputs[0], backward=False)
        self._launch_tiles(forward_kernel, results, results[0], blocks, blocks["BLOCK_Q"])

    def backward(self, known: tuple[Tensor, ...], results: tuple[Tensor, ...]) -> None:
        """Fills the gradients of query, key, value, and of the gates of rows, columns, diagonals.

        Known are the output's gradient and what ``forward`` filled. Gates' gradients are
        (B, H, N) and (B, H, K); a result without elements is left alone.
        """
        gradient, output, highest_BHN, log_total_BHN = known
        gradient = _with_unit_stride(gradient)
        delta_BHN = (gradient.float() * output.float()).sum(-1)
        blocks = _blocks(gradient, backward=True)
        of_query, of_key, of_value, *of_gates = results
        read: tuple[Tensor, ...] = (gradient, log_total_BHN, delta_BHN)
        self._launch_tiles(
            query_gradient_kernel, (*read, of_query), gradient, blocks, blocks["BLOCK_Q"]
        )
        self._launch_tiles(
            key_gradient_kernel, (*read, of_key, of_value), gradient, blocks,
            blocks["BLOCK_K"],
        )  # fmt: skip
        read = (gradient, highest_BHN, *read[1:])
        for axis, of_axis in enumerate(of_gates[:2]):
            if of_axis.numel():
                self._fill_axis(axis, read, of_axis)
        if of_gates[2].numel():
            self._fill_diagonals(read, of_gates[2])

    def _launch_tiles(
        self, kernel: Any, tensors: tuple[Tensor, ...], fourth: Tensor, blocks: dict[str, int],
        own_block: int,
    ) -> None:  # fmt: skip
        """``fourth`` is what the kernel takes strides of, besides query, key and value."""
        tiles = triton.cdiv(self.num_tokens, own_block)
        axes = (self.rows, self.columns)
        kernel[(2 * tiles, self.batch * self.num_heads)](
            *self.inputs, *tensors,
            *(part for axis in axes for part in (axis.gates, axis.tokens, axis.counts)),
            self.diagonals, self.spans, self.seed, *self._strides(fourth),
            self.num_heads, *(axis.heads for axis in axes), self.diagonals.shape[1],
            self.num_tokens, self.diagonals.shape[2], self.window, tiles,
            self.scaling, self.dropout, **self._constants(blocks),
        )  # fmt: skip

    def _fill_axis(self, axis: int, read: tuple[Tensor, ...], result: Tensor) -> None:
        """The gradient of an axis's gates: of open ones exactly, of closed ones by sampling."""
        own = (self.rows, self.columns)[axis]
        is_closed = (own.gates == 0) & self.keep_B1N
        sampled, factor_B = self._sample()
        result.zero_()
        self._launch_axis(axis, own, OpenGates.of(self.keep_B1N), read, result)
        self._launch_axis(axis, OpenGates.of(is_closed), sampled, read, result)
        result.mul_(torch.where(is_closed, factor_B[:, None, None], 1.0))

    def _sample(self) -> tuple[OpenGates, Tensor]:
        """Random real tokens of each text, and how many tokens each of them stands for."""
        size = min(SAMPLED_TOKENS, self.num_tokens)
        order_B1N = torch.rand(self.keep_B1N.shape, device=self.keep_B1N.device)
        tokens_B1S = order_B1N.masked_fill(~self.keep_B1N, -1).topk(size, -1).indices.int()
        length_B = self.keep_B1N.sum((1, 2), dtype=torch.int32)
        count_B = length_B.clamp_max(size)
        sampled = OpenGates(self.keep_B1N, tokens_B1S, count_B.unsqueeze(-1).contiguous())
        return sampled, length_B / count_B.clamp_min(1)

    def _launch_axis(
        self, axis: int, own: OpenGates, others: OpenGates, read: tuple[Tensor, ...],
        result: Tensor,
    ) -> None:  # fmt: skip
        blocks = _blocks(read[0], backward=True)
        other = (self.columns, self.rows)[axis]
        tiles = triton.cdiv(self.num_tokens, blocks["BLOCK_Q"])
        axis_gradient_kernel[(tiles, self.batch * self.num_heads)](
            *self.inputs, *read, result, own.tokens, own.counts, other.gates,
            others.tokens, others.counts, self.diagonals, self.seed, *self._strides(read[0]),
            self.num_heads, own.heads, other.heads, self.diagonals.shape[1],
            self.num_tokens, self.diagonals.shape[2], others.tokens.shape[2], self.window,
            self.scaling, self.dropout, ROWS=axis == 0, **self._constants(blocks),
        )  # fmt: skip

    def _fill_diagonals(self, read: tuple[Tensor, ...], result: Tensor) -> None:
        num_diagonals = result.shape[2]
        blocks = _blocks(read[0], backward=True)
        diagonal_gradient_kernel[(num_diagonals, self.batch * self.num_heads)](
            *self.inputs, *read, result.zero_(), self.rows.gates, self.columns.gates, self.spans,
            self.seed, *self._strides(read[0]), self.num_heads, self.rows.heads,
            self.columns.heads, self.num_tokens, num_diagonals, self.window, self.scaling,
            self.dropout, D=self.width, BLOCK_D=_padded(self.width), BLOCK=blocks["BLOCK_Q"],
            DROPOUT=self.dropout > 0,
        )  # fmt: skip

    def _strides(self, fourth: Tensor) -> list[int]:
        return [x.stride(axis) for x in (*self.inputs, fourth) for axis in range(3)]

    def _constants(self, blocks: dict[str, int]) -> dict[str, Any]:
        exact = torch.get_float32_matmul_precision() == "highest"
        return {
            "D": self.width, "BLOCK_D": _padded(self.width), "DROPOUT": self.dropout > 0,
            "PRECISION": "ieee" if exact else "tf32", **blocks,
        }  # fmt: skip


def _blocks(query: Tensor, backward: bool) -> dict[str, int]:
    """Tile sizes and warps, chosen so that no kernel spills registers on sm_90; not timed."""
    if not query.is_cuda:
        return {"BLOCK_Q": INTERPRETED_BLOCK, "BLOCK_K": INTERPRETED_BLOCK}
    width = _padded(query.shape[-1])
    if query.dtype == torch.float32 or width > 128:
        return {"BLOCK_Q": 32, "BLOCK_K": 32, "num_warps": 4}
    if backward or width > 64:
        return {"BLOCK_Q": 64, "BLOCK_K": 64, "num_warps": 4}
    return {"BLOCK_Q": 128, "BLOCK_K": 64, "num_warps": 8}


def _padded(width: int) -> int:
    """The head's size as a tile has it: a power of two, and no less than a matrix unit takes."""
    return max(16, triton.next_power_of_2(width))


def _with_unit_stride(tensor_BHND: Tensor) -> Tensor:
    return tensor_BHND if tensor_BHND.stride(-1) == 1 else tensor_BHND.contiguous()
