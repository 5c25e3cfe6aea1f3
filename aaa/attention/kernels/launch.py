"""Launches the kernels for one batch at one layer.

Shape suffixes: S sampled tokens.
"""

from __future__ import annotations

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
from aaa.attention.kernels.tiles import ROOM

INTERPRETED_BLOCK = 16
# An open row of a long text is not the work of one program, but of one for so many keys each.
TOKENS_A_SPLIT, MOST_SPLITS = 1024, 64
MOST_PARTS = 16  # of a gate's gradient
NARROW = 31  # distances that fit into the bits of a number


class AxisAttention:
    """Attention of queries, keys and values, (B, H, N, D), under rows, columns and diagonals."""

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor,
        diagonals: Tensor, keep_BN: Tensor, seed: Tensor | None, window: int, scaling: float,
        dropout: float,
    ) -> None:  # fmt: skip
        self.inputs = tuple(_tokens_before_heads(x) for x in (query, key, value))
        self.batch, self.num_heads, self.num_tokens, self.width = query.shape
        self.keep_BN = keep_BN
        self.open = OpenGates.of(rows, columns, keep_BN)
        self.diagonals = diagonals.contiguous()
        self.seed, self.window = seed, window
        self.scaling, self.dropout = scaling, dropout
        tokens = TOKENS_A_SPLIT if query.is_cuda else INTERPRETED_BLOCK
        self.most_splits = min(MOST_SPLITS, triton.cdiv(self.num_tokens, tokens))

    def forward(self, results: tuple[Tensor, ...]) -> None:
        """Fills the output, each query's largest open score, and its log-sum-exp."""
        blocks = _blocks(self.inputs[0])
        tensors = (*results, self._parts(self.width + 2))
        self._launch_tiles(forward_kernel, (*self.inputs, *tensors), blocks, blocks["BLOCK_Q"])
        self._launch_joins(merge_kernel, tensors)

    def backward(self, known: tuple[Tensor, ...], results: tuple[Tensor, ...]) -> None:
        """Fills the gradients of query, key, value, and of the gates of rows, columns, diagonals.

        Known are the output's gradient and what ``forward`` filled. Gates' gradients are
        (B, H, N) and (B, H, K); a result without elements is left alone.
        """
        gradient, output, highest_BHN, log_total_BHN = known
        gradient = _tokens_before_heads(gradient)
        delta_BHN = torch.empty_like(log_total_BHN)
        blocks = _blocks(gradient)
        of_query, of_key, of_value, *of_gates = results
        parts = self._parts(2 * self.width)
        tensors = (output, gradient, log_total_BHN, delta_BHN, of_query, parts)
        self._launch_tiles(
            query_gradient_kernel, (*self.inputs, *tensors), blocks, blocks["BLOCK_Q"]
        )
        self._launch_joins(sum_kernel, (of_query, of_query, parts), AXIS=0)
        tensors = (gradient, log_total_BHN, delta_BHN, of_key, of_value, parts)
        self._launch_tiles(
            key_gradient_kernel, (*self.inputs, *tensors), blocks, blocks["BLOCK_K"]
        )
        self._launch_joins(sum_kernel, (of_key, of_value, parts), 2, AXIS=1)
        read = (*self.inputs, gradient, highest_BHN, log_total_BHN, delta_BHN)
        if any(gates.numel() for gates in of_gates[:2]):
            sample = self._sample()
            for axis, of_axis in enumerate(of_gates[:2]):
                if of_axis.numel():
                    self._fill_axis(axis, read, sample, of_axis)
        if of_gates[2].numel():
            self._fill_diagonals(read, of_gates[2])

    def _parts(self, width: int) -> Tensor:
        """Room for what programs find that divide the walk of a listed token."""
        size = self.batch * self.num_heads * (self.num_tokens // ROOM.value) * width
        return self.keep_BN.new_empty(size if self.most_splits > 1 else 0, dtype=torch.float32)

    @property
    def _lists(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.open.gates, self.open.tokens, self.open.counts

    @property
    def _mask(self) -> tuple[Any, ...]:
        """What most kernels take behind their own tensors."""
        return (
            *self._lists, self.diagonals, self.open.spans, self.seed, self.num_heads,
            self.open.heads, *self.diagonals.shape[:2], self.num_tokens, self.diagonals.shape[2],
            self.window,
        )  # fmt: skip

    def _launch_tiles(
        self, kernel: Any, tensors: tuple[Tensor, ...], blocks: dict[str, int], own_block: int
    ) -> None:
        tiles = triton.cdiv(self.num_tokens, own_block)
        list_programs = tiles + self.most_splits  # of any list: see ``splits_of``
        kernel[(list_programs + tiles, self.batch * self.num_heads)](
            *tensors, *self._mask, list_programs, self.most_splits, self.scaling, self.dropout,
            **self._constants(blocks),
        )  # fmt: skip

    def _launch_joins(
        self, kernel: Any, tensors: tuple[Tensor, ...], of_tensors: int = 1, **constants: int
    ) -> None:
        """Of what was divided: a list that has room for two parts of each of its tokens."""
        if self.most_splits == 1:
            return
        tiles = triton.cdiv(self.num_tokens // ROOM.value // 2, INTERPRETED_BLOCK)
        kernel[(tiles, self.batch * self.num_heads, of_tensors)](
            *tensors, *self._lists, self.num_heads, self.open.heads, self.num_tokens,
            self.most_splits, D=self.width, BLOCK_D=_padded(self.width), BLOCK=INTERPRETED_BLOCK,
            **constants,
        )  # fmt: skip

    def _fill_axis(
        self, axis: int, read: tuple[Tensor, ...], sample: tuple[Tensor, Tensor], result: Tensor
    ) -> None:
        """The gradient of an axis's gates: of open ones exactly, of closed ones by sampling."""
        blocks = _blocks(read[0])
        tiles = triton.cdiv(self.num_tokens, blocks["BLOCK_Q"])
        parts = self._zero_parts(result)
        for is_sampled in (False, True):
            grid = (tiles, self.batch * self.num_heads, 1 if is_sampled else len(parts))
            axis_gradient_kernel[grid](
                *read, parts, *sample, *self._mask, sample[0].shape[-1], self.scaling,
                self.dropout, AXIS=axis, SAMPLED=is_sampled, **self._constants(blocks),
            )  # fmt: skip
        if len(parts) > 1:
            torch.sum(parts, 0, out=result)

    def _fill_diagonals(self, read: tuple[Tensor, ...], result: Tensor) -> None:
        num_diagonals = result.shape[2]
        blocks = _blocks(read[0])
        parts = self._zero_parts(result)
        diagonal_gradient_kernel[(num_diagonals, self.batch * self.num_heads, len(parts))](
            *read, parts, *self._lists, self.open.spans, self.seed, self.num_heads,
            self.open.heads, self.num_tokens, num_diagonals, self.window, self.scaling,
            self.dropout, D=self.width, BLOCK_D=_padded(self.width), BLOCK=blocks["BLOCK_Q"],
            DROPOUT=self.dropout > 0,
        )  # fmt: skip
        if len(parts) > 1:
            torch.sum(parts, 0, out=result)

    def _zero_parts(self, result: Tensor) -> Tensor:
        """(parts, *result.shape); the result itself where there is one part."""
        count = min(MOST_PARTS, self.most_splits)
        if count == 1:
            return result.zero_().unsqueeze(0)
        return result.new_zeros(count, *result.shape)

    def _sample(self) -> tuple[Tensor, Tensor]:
        """Random real tokens of each text, and how many there are."""
        size = min(SAMPLED_TOKENS, self.num_tokens)
        order_BN = torch.rand(self.keep_BN.shape, device=self.keep_BN.device)
        tokens_BS = order_BN.masked_fill(~self.keep_BN, -1).topk(size, -1).indices.int()
        return tokens_BS, self.keep_BN.sum(-1, dtype=torch.int32).clamp_max(size)

    def _constants(self, blocks: dict[str, int]) -> dict[str, Any]:
        exact = torch.get_float32_matmul_precision() == "highest"
        return {
            "WINDOWED": self.window < self.num_tokens, "NARROW": self.diagonals.shape[2] <= NARROW,
            "D": self.width, "BLOCK_D": _padded(self.width), "DROPOUT": self.dropout > 0,
            "PRECISION": "ieee" if exact else "tf32", **blocks,
        }  # fmt: skip


def _blocks(query: Tensor) -> dict[str, int]:
    """Tile sizes and warps: the fastest of a dozen on an H100 for heads of 64 in bfloat16."""
    if not query.is_cuda:
        return {"BLOCK_Q": INTERPRETED_BLOCK, "BLOCK_K": INTERPRETED_BLOCK}
    width = _padded(query.shape[-1])
    if query.dtype == torch.float32 or width > 128:
        return {"BLOCK_Q": 32, "BLOCK_K": 32, "num_warps": 4}
    return {"BLOCK_Q": 64, "BLOCK_K": 64, "num_warps": 4}


def _padded(width: int) -> int:
    """The head's size as a tile has it: a power of two, and no less than a matrix unit takes."""
    return max(16, triton.next_power_of_2(width))


def _tokens_before_heads(tensor_BHND: Tensor) -> Tensor:
    """It comes to lie in memory as (B, N, H, D), as encoders have it, where it does not yet."""
    return tensor_BHND.transpose(1, 2).contiguous().transpose(1, 2)
