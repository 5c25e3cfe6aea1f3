"""Launches the kernels of ``triton_kernels`` for one batch at one layer.

Shape suffixes: L entries of a list of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from aaa.attention import triton_kernels as kernels

# From the cells of so many random queries the gradients of closed columns are estimated, and from
# those of so many random keys those of closed rows, without bias.
SAMPLED_TOKENS = 32
INTERPRETED_BLOCK = 16


@dataclass(frozen=True)
class OpenGates:
    """One axis's gates: int8 (B, 1 or H, N), the open tokens' list of the same shape, counts."""

    gates: Tensor
    tokens: Tensor
    counts: Tensor

    @classmethod
    def of(cls, open_BHN: Tensor) -> OpenGates:
        """Lists the open ones in order, without waiting for the device."""
        num_tokens = open_BHN.shape[-1]
        places = torch.where(open_BHN, open_BHN.cumsum(-1) - 1, num_tokens)
        tokens = torch.arange(num_tokens, device=open_BHN.device).expand_as(places)
        lists = torch.zeros(*places.shape[:-1], num_tokens + 1, dtype=torch.int32).to(places.device)
        lists.scatter_(-1, places, tokens.int())
        counts = open_BHN.sum(-1, dtype=torch.int32)
        return cls(open_BHN.to(torch.int8), lists[..., :num_tokens].contiguous(), counts)

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
        self.inputs = tuple(x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
        self.shape = query.shape
        self.keep_B1N = keep_BN.unsqueeze(1)
        self.rows = OpenGates.of((rows > 0) & self.keep_B1N)
        self.columns = OpenGates.of((columns > 0) & self.keep_B1N)
        batch, diagonal_heads, _ = diagonals.expand(len(keep_BN), -1, -1).shape
        self.diagonals = (diagonals > 0).expand(batch, -1, -1).to(torch.int8).contiguous()
        self.diagonal_heads = diagonal_heads
        start_B = keep_BN.int().argmax(-1)
        self.spans = torch.stack([start_B, start_B + keep_BN.sum(-1)], -1).int().contiguous()
        self.seed = seed
        self.window, self.scaling, self.dropout = window, scaling, dropout

    def forward(self, output: Tensor, highest_BHN: Tensor, log_total_BHN: Tensor) -> None:
        """Fills the output, each query's largest open score and its log-sum-exp."""
        self._launch_tiles(
            kernels.forward_kernel, (output, highest_BHN, log_total_BHN), output, own="queries"
        )

    def backward(
        self, gradient: Tensor, output: Tensor, highest_BHN: Tensor, log_total_BHN: Tensor,
        results: tuple[Tensor, ...],
    ) -> None:  # fmt: skip
        """Fills the gradients of query, key, value, rows, columns and diagonals.

        Those of gates, (B, H, N) and (B, H, K), are left alone where a result has no elements.
        """
        gradient = gradient if gradient.stride(-1) == 1 else gradient.contiguous()
        delta_BHN = (gradient.float() * output.float()).sum(-1)
        of_query, of_key, of_value, of_rows, of_columns, of_diagonals = results
        known = (gradient, log_total_BHN, delta_BHN)
        self._launch_tiles(
            kernels.query_gradient_kernel, (*known, of_query), gradient, own="queries"
        )
        self._launch_tiles(
            kernels.key_gradient_kernel, (*known, of_key, of_value), gradient, own="keys"
        )
        known = (gradient, highest_BHN, log_total_BHN, delta_BHN)
        if of_rows.numel():
            self._fill_gates(self.rows, self.columns, known, of_rows, are_rows=True)
        if of_columns.numel():
            self._fill_gates(self.columns, self.rows, known, of_columns, are_rows=False)
        if of_diagonals.numel():
            self._launch_diagonals(known, of_diagonals)

    def _launch_tiles(
        self, kernel: Any, tensors: tuple[Tensor, ...], fourth: Tensor, own: str
    ) -> None:
        batch, num_heads, num_tokens, _ = self.shape
        blocks = _blocks(self.inputs[0], backward=kernel is not kernels.forward_kernel)
        tiles = triton.cdiv(num_tokens, blocks["BLOCK_Q" if own == "queries" else "BLOCK_K"])
        both = (self.rows, self.columns)
        kernel[(2 * tiles, batch * num_heads)](
            *self.inputs, *tensors,
            *(part for axis in both for part in (axis.gates, axis.tokens, axis.counts)),
            self.diagonals, self.spans, self.seed, *self._strides(fourth),
            num_heads, *(axis.heads for axis in both), self.diagonal_heads,
            num_tokens, self.diagonals.shape[-1], self.window, tiles, self.scaling, self.dropout,
            **self._constants(blocks),
        )  # fmt: skip

    def _fill_gates(
        self, own: OpenGates, other: OpenGates, known: tuple[Tensor, ...], result: Tensor,
        are_rows: bool,
    ) -> None:  # fmt: skip
        """The gradient of an axis's gates: of open ones exactly, of closed ones by sampling."""
        is_closed = (own.gates == 0) & self.keep_B1N
        sampled, factor_B = self._sample()
        result.zero_()
        self._launch_gates(own, other, OpenGates.of(self.keep_B1N), known, result, are_rows)
        closed = OpenGates.of(is_closed)
        self._launch_gates(closed, other, sampled, known, result, are_rows)
        result.mul_(torch.where(is_closed, factor_B[:, None, None], 1.0))

    def _sample(self) -> tuple[OpenGates, Tensor]:
        """Random real tokens of each text, and how many tokens each of them stands for."""
        size = min(SAMPLED_TOKENS, self.keep_B1N.shape[-1])
        order_B1N = torch.rand(self.keep_B1N.shape, device=self.keep_B1N.device)
        tokens_B1S = order_B1N.masked_fill(~self.keep_B1N, -1).topk(size, -1).indices.int()
        length_B = self.keep_B1N.sum((1, 2), dtype=torch.int32)
        count_B = length_B.clamp_max(size)
        sampled = OpenGates(self.keep_B1N, tokens_B1S, count_B.unsqueeze(-1).contiguous())
        return sampled, length_B / count_B.clamp_min(1)

    def _launch_gates(
        self, own: OpenGates, other: OpenGates, others: OpenGates, known: tuple[Tensor, ...],
        result: Tensor, are_rows: bool,
    ) -> None:  # fmt: skip
        batch, num_heads, num_tokens, _ = self.shape
        blocks = _blocks(self.inputs[0], backward=True)
        tiles = triton.cdiv(num_tokens, blocks["BLOCK_Q"])
        kernels.axis_gradient_kernel[(tiles, batch * num_heads)](
            *self.inputs, *known, result, own.tokens, own.counts, other.gates,
            others.tokens, others.counts, self.diagonals, self.seed, *self._strides(known[0]),
            num_heads, own.heads, other.heads, self.diagonal_heads,
            num_tokens, self.diagonals.shape[-1], others.tokens.shape[-1], self.window,
            self.scaling, self.dropout, ROWS=are_rows, **self._constants(blocks),
        )  # fmt: skip

    def _launch_diagonals(self, known: tuple[Tensor, ...], result: Tensor) -> None:
        batch, num_heads, num_tokens, width = self.shape
        num_diagonals = self.diagonals.shape[-1]
        kernels.diagonal_gradient_kernel[(num_diagonals, batch * num_heads)](
            *self.inputs, *known, result.zero_(), self.rows.gates, self.columns.gates, self.spans,
            self.seed, *self._strides(known[0]), num_heads, self.rows.heads, self.columns.heads,
            num_tokens, num_diagonals, self.window, self.scaling, self.dropout,
            D=width, BLOCK_D=_padded(width), BLOCK=_blocks(self.inputs[0], True)["BLOCK_Q"],
            DROPOUT=self.dropout > 0,
        )  # fmt: skip

    def _strides(self, fourth: Tensor) -> list[int]:
        return [x.stride(axis) for x in (*self.inputs, fourth) for axis in range(3)]

    def _constants(self, blocks: dict[str, int]) -> dict[str, Any]:
        exact = torch.get_float32_matmul_precision() == "highest"
        width = self.shape[-1]
        return {
            "D": width, "BLOCK_D": _padded(width), "PRECISION": "ieee" if exact else "tf32",
            "DROPOUT": self.dropout > 0, **blocks,
        }  # fmt: skip


def _blocks(query: Tensor, backward: bool) -> dict[str, int]:
    """Tile sizes and warps: none of the kernels spills registers on sm_90; not tuned on a GPU."""
    if not query.is_cuda:
        return {"BLOCK_Q": INTERPRETED_BLOCK, "BLOCK_K": INTERPRETED_BLOCK}
    width = _padded(query.shape[-1])
    if query.dtype == torch.float32 or width > 128:
        return {"BLOCK_Q": 32, "BLOCK_K": 32, "num_warps": 4}
    if backward or width > 64:
        return {"BLOCK_Q": 64, "BLOCK_K": 64, "num_warps": 4}
    return {"BLOCK_Q": 128, "BLOCK_K": 64, "num_warps": 8}


def _padded(width: int) -> int:
    return max(16, triton.next_power_of_2(width))
