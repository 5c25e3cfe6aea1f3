"""Launches the kernels for one batch at one layer.

Shape suffixes: S sampled tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from aaa.attention.gates import SAMPLED_TOKENS
from aaa.attention.kernels.backward import (
    key_gradient_kernel,
    query_gradient_kernel,
    sum_kernel,
)
from aaa.attention.kernels.forward import forward_kernel, merge_kernel
from aaa.attention.kernels.gates import axis_gradient_kernel, diagonal_gradient_kernel
from aaa.attention.kernels.lists import OpenGates

INTERPRETED_BLOCK = 16
# An open row of a long text is no one program's work: of about so many keys each.
TOKENS_A_SPLIT, MOST_SPLITS = 1024, 64


class AxisAttention:
    """Attention of queries, keys and values, (B, H, N, D), under rows, columns and diagonals."""

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor,
        diagonals: Tensor, keep_BN: Tensor, seed: Tensor, window: int, scaling: float,
        dropout: float,
    ) -> None:  # fmt: skip
        self.inputs = tuple(_with_unit_stride(x) for x in (query, key, value))
        self.batch, self.num_heads, self.num_tokens, self.width = query.shape
        self.keep_BN = keep_BN
        self.rows, self.columns = OpenGates.of(rows, keep_BN), OpenGates.of(columns, keep_BN)
        self.diagonals = (diagonals > 0).expand(self.batch, -1, -1).to(torch.int8).contiguous()
        start_B = keep_BN.int().argmax(-1)
        self.spans = torch.stack([start_B, start_B + keep_BN.sum(-1)], -1).int().contiguous()
        self.seed, self.window = seed, window
        self.scaling, self.dropout = scaling, dropout
        tokens = TOKENS_A_SPLIT if query.is_cuda else INTERPRETED_BLOCK
        self.most_splits = min(MOST_SPLITS, triton.cdiv(self.num_tokens, tokens))

    def forward(self, results: tuple[Tensor, ...]) -> None:
        """Fills the output, each query's largest open score, and its log-sum-exp."""
        blocks = _blocks(self.inputs[0], backward=False)
        output = results[0]
        parts = (self._parts(self.width), self._parts(), self._parts())
        self._launch_tiles(forward_kernel, (*results, *parts), output, blocks, blocks["BLOCK_Q"])
        self._launch_sums(merge_kernel, (*results, *parts), self.rows, output.stride()[:3])

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
        part, other_part = self._parts(self.width), self._parts(self.width)
        self._launch_tiles(
            query_gradient_kernel, (*read, of_query, part), gradient, blocks, blocks["BLOCK_Q"]
        )
        self._launch_sums(sum_kernel, (part, of_query), self.rows)
        self._launch_tiles(
            key_gradient_kernel, (*read, of_key, of_value, part, other_part), gradient, blocks,
            blocks["BLOCK_K"],
        )  # fmt: skip
        self._launch_sums(sum_kernel, (part, of_key), self.columns)
        self._launch_sums(sum_kernel, (other_part, of_value), self.columns)
        read = (gradient, highest_BHN, *read[1:])
        for axis, of_axis in enumerate(of_gates[:2]):
            if of_axis.numel():
                self._fill_axis(axis, read, of_axis)
        if of_gates[2].numel():
            self._fill_diagonals(read, of_gates[2])

    def _parts(self, *width: int) -> Tensor:
        """Room for what programs find that divide the walk of a listed token."""
        tokens = self.num_tokens if self.most_splits > 1 else 0
        shape = (self.batch, self.num_heads, tokens, *width)
        return torch.empty(shape, dtype=torch.float32, device=self.keep_BN.device)

    def _launch_tiles(
        self, kernel: Any, tensors: tuple[Tensor, ...], fourth: Tensor, blocks: dict[str, int],
        own_block: int,
    ) -> None:  # fmt: skip
        """``fourth`` is what the kernel takes strides of, besides query, key and value."""
        tiles = triton.cdiv(self.num_tokens, own_block)
        list_programs = tiles + self.most_splits  # of any list: see ``splits_of``
        axes = (self.rows, self.columns)
        kernel[(list_programs + tiles, self.batch * self.num_heads)](
            *self.inputs, *tensors,
            *(part for axis in axes for part in (axis.gates, axis.tokens, axis.counts)),
            self.diagonals, self.spans, self.seed, *self._strides(fourth),
            self.num_heads, *(axis.heads for axis in axes), self.diagonals.shape[1],
            self.num_tokens, self.diagonals.shape[2], self.window, list_programs,
            self.most_splits, self.scaling, self.dropout, **self._constants(blocks),
        )  # fmt: skip

    def _launch_sums(
        self, kernel: Any, tensors: tuple[Tensor, ...], own: OpenGates, strides: Sequence[int] = ()
    ) -> None:
        """Of what was divided; a list that is longer than half the text is not."""
        if self.most_splits == 1:
            return
        tiles = triton.cdiv(self.num_tokens // 2, INTERPRETED_BLOCK)
        kernel[(tiles, self.batch * self.num_heads)](
            *tensors, own.tokens, own.counts, *strides, self.num_heads, own.heads,
            self.num_tokens, self.most_splits, D=self.width, BLOCK_D=_padded(self.width),
            BLOCK=INTERPRETED_BLOCK,
        )  # fmt: skip

    def _fill_axis(self, axis: int, read: tuple[Tensor, ...], result: Tensor) -> None:
        """The gradient of an axis's gates: of open ones exactly, of closed ones by sampling."""
        own = (self.rows, self.columns)[axis]
        keep_B1N = self.keep_BN.unsqueeze(1)
        closed = OpenGates.of(own.gates, self.keep_BN, closed=True)
        sampled, factor_B = self._sample()
        parts = result.new_zeros(self.most_splits, *result.shape)
        self._launch_axis(axis, own, OpenGates.of(keep_B1N, self.keep_BN), read, parts)
        self._launch_axis(axis, closed, sampled, read, parts[:1])
        torch.sum(parts, 0, out=result)
        result.mul_(torch.where(closed.gates > 0, factor_B[:, None, None], 1.0))

    def _sample(self) -> tuple[OpenGates, Tensor]:
        """Random real tokens of each text, and how many tokens each of them stands for."""
        size = min(SAMPLED_TOKENS, self.num_tokens)
        keep_B1N = self.keep_BN.unsqueeze(1)
        order_B1N = torch.rand(keep_B1N.shape, device=keep_B1N.device)
        tokens_B1S = order_B1N.masked_fill(~keep_B1N, -1).topk(size, -1).indices.int()
        length_B = self.keep_BN.sum(-1, dtype=torch.int32)
        count_B = length_B.clamp_max(size)
        sampled = OpenGates(keep_B1N, tokens_B1S, count_B.unsqueeze(-1).contiguous())
        return sampled, length_B / count_B.clamp_min(1)

    def _launch_axis(
        self, axis: int, own: OpenGates, others: OpenGates, read: tuple[Tensor, ...],
        parts: Tensor,
    ) -> None:  # fmt: skip
        blocks = _blocks(read[0], backward=True)
        other = (self.columns, self.rows)[axis]
        tiles = triton.cdiv(self.num_tokens, blocks["BLOCK_Q"])
        axis_gradient_kernel[(tiles, self.batch * self.num_heads, len(parts))](
            *self.inputs, *read, parts, own.tokens, own.counts, other.gates,
            others.tokens, others.counts, self.diagonals, self.seed, *self._strides(read[0]),
            self.num_heads, own.heads, other.heads, self.diagonals.shape[1],
            self.num_tokens, self.diagonals.shape[2], others.tokens.shape[2], self.window,
            parts.stride(0), self.scaling, self.dropout, ROWS=axis == 0,
            **self._constants(blocks),
        )  # fmt: skip

    def _fill_diagonals(self, read: tuple[Tensor, ...], result: Tensor) -> None:
        num_diagonals = result.shape[2]
        blocks = _blocks(read[0], backward=True)
        parts = result.new_zeros(self.most_splits, *result.shape)
        diagonal_gradient_kernel[(num_diagonals, self.batch * self.num_heads, len(parts))](
            *self.inputs, *read, parts, self.rows.gates, self.columns.gates, self.spans,
            self.seed, *self._strides(read[0]), self.num_heads, self.rows.heads,
            self.columns.heads, self.num_tokens, num_diagonals, self.window, parts.stride(0),
            self.scaling, self.dropout, D=self.width, BLOCK_D=_padded(self.width),
            BLOCK=blocks["BLOCK_Q"], DROPOUT=self.dropout > 0,
        )  # fmt: skip
        torch.sum(parts, 0, out=result)

    def _strides(self, fourth: Tensor) -> list[int]:
        return [x.stride(axis) for x in (*self.inputs, fourth) for axis in range(3)]

    def _constants(self, blocks: dict[str, int]) -> dict[str, Any]:
        exact = torch.get_float32_matmul_precision() == "highest"
        return {
            "WINDOWED": self.window < self.num_tokens, "D": self.width,
            "BLOCK_D": _padded(self.width), "DROPOUT": self.dropout > 0,
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
