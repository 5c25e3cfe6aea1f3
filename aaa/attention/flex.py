"""PyTorch's FlexAttention under a block mask, for masks that are not being learned.

Which blocks of 128 x 128 cells are touched follows from diagonals, rows, columns and edges
directly: nothing of N x N is ever built, and the map of blocks has 16,384 times fewer entries.

One compilation serves all lengths. FlexAttention is known to compile anew for each length
(https://github.com/pytorch/pytorch/issues/141486). Here texts are padded to whole blocks, shapes are
dynamic, and the block mask is made of tensors inside what is compiled, anew for each batch: so none
can be used for another length by mistake. (Padding to a few fixed lengths instead would compile
once for each of them and compute up to their square for every shorter text.)

Tested on a CPU, where it serves inference. It has not been run on a GPU yet.

Shape suffixes: G blocks of the text, S blocks that hold edges.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from aaa.masks import SparseMask

BLOCK = 128
BITS = 8  # cells of an edge block that one byte holds
# Of the tensors that are compiled for: samples, tokens and blocks, but neither heads nor features.
DYNAMIC_AXES = (
    *[(0, 2)] * 3, (0, 1), *[(0, 2)] * 3, *[(0, 2), (0, 2, 3)] * 2, (0, 1, 2), (0, 1),
)  # fmt: skip


def flex_attention(
    query_BHND: Tensor,
    key_BHND: Tensor,
    value_BHND: Tensor,
    mask: SparseMask,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, None]:
    """As ``dense_attention``, but gives no gradient to gates and returns no probabilities.

    Rows of padding are 0.

    Raises:
        ValueError: if a gate of the mask needs a gradient; or for what FlexAttention has not:
            dropout, and gradients on a CPU.
    """
    _check(query_BHND, key_BHND, value_BHND, mask, dropout)
    num_heads, num_tokens = query_BHND.shape[1:3]
    # Two blocks at least: a size of 1 would be compiled apart.
    extra = max(-num_tokens % BLOCK, 2 * BLOCK - num_tokens)
    query, key, value = (
        F.pad(x.to(value_BHND.dtype), (0, 0, 0, extra)) for x in (query_BHND, key_BHND, value_BHND)
    )
    mask = _padded(mask, num_heads, extra)
    partial_BHGG, full_BHGG = touched_blocks(mask)
    tensors = (
        query, key, value, mask.keep_BN, mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK,
        *_ordered(partial_BHGG), *_ordered(full_BHGG), *_edge_bits(mask),
    )  # fmt: skip
    output_BHND = _run(tensors, mask.window, scaling)
    return output_BHND[:, :, :num_tokens], None


def _check(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, mask: SparseMask, dropout: float
) -> None:
    if mask.needs_gradient:
        raise ValueError(
            "executor 'flex' gives no gradient to the gates of a pattern that is being learned; "
            "use 'auto' in training"
        )
    if dropout:
        raise ValueError(
            "executor 'flex' has no attention dropout: set it to 0 in the model's config "
            "(attention_probs_dropout_prob=0 for BERT), or use 'auto'"
        )
    learning = any(x.requires_grad for x in (query_BHND, key_BHND, value_BHND))
    if torch.is_grad_enabled() and learning and not query_BHND.is_cuda:
        raise ValueError(
            f"executor 'flex' has no gradient on {query_BHND.device}, only on GPUs: use 'auto', "
            "or call the model under torch.inference_mode()"
        )


def _padded(mask: SparseMask, num_heads: int, extra: int) -> SparseMask:
    """The same mask over whole blocks: bool gates of every sample and head, none left out."""
    batch, num_tokens = mask.keep_BN.shape
    real_B1N = F.pad(mask.keep_BN, (0, extra)).unsqueeze(1)

    def full_size(gates: Tensor | None) -> Tensor:
        if gates is None:
            return real_B1N.new_zeros(batch, num_heads, num_tokens + extra)
        opened = gates.detach()[..., :num_tokens] > 0
        opened = F.pad(opened, (0, num_tokens + extra - opened.shape[-1]))
        return opened.expand(batch, num_heads, -1).contiguous()

    return SparseMask(
        real_B1N.squeeze(1),
        full_size(mask.rows_BHN) & real_B1N,
        full_size(mask.columns_BHN) & real_B1N,
        full_size(mask.diagonals_BHK),
        mask.edges_BE2,
        mask.window,
    )


def touched_blocks(mask: SparseMask) -> tuple[Tensor, Tensor]:
    """Blocks of which some cells are open, and those of which all are; bool (B, H, G, G) each.

    Takes a mask over whole blocks with bool gates of every kind but edges, each for its N tokens.
    """
    assert mask.rows_BHN is not None
    assert mask.columns_BHN is not None
    assert mask.diagonals_BHK is not None
    keep_BGT, rows_BHGT, columns_BHGT = (
        part.unflatten(-1, (-1, BLOCK)) for part in (mask.keep_BN, mask.rows_BHN, mask.columns_BHN)
    )
    blocks_G = torch.arange(keep_BGT.shape[1], device=mask.keep_BN.device)
    apart_GG = (blocks_G[:, None] - blocks_G[None, :]).abs()
    some_BHG, all_BHG = _diagonals_by_block(mask.diagonals_BHK)

    some = rows_BHGT.any(-1)[..., None] | columns_BHGT.any(-1)[..., None, :]
    some = some | some_BHG[..., apart_GG]
    every = rows_BHGT.all(-1)[..., None] | columns_BHGT.all(-1)[..., None, :]
    every = every | all_BHG[..., apart_GG]
    if mask.edges_BE2 is not None:
        some = some | _blocks_of_edges(mask.edges_BE2, len(blocks_G)).unsqueeze(1)
    some_real, all_real = (
        (real_BG[:, :, None] & real_BG[:, None, :]).unsqueeze(1)
        for real_BG in (keep_BGT.any(-1), keep_BGT.all(-1))
    )
    some, every = some & some_real, every & all_real
    if mask.window is not None:
        some = some & (BLOCK * (apart_GG - 1) < mask.window)
        every = every & (BLOCK * (apart_GG + 1) - 1 <= mask.window)
    return some & ~every, every


def _diagonals_by_block(diagonals_BHN: Tensor) -> tuple[Tensor, Tensor]:
    """For blocks so many blocks apart: is one of their distances open; are all of them."""
    distances = diagonals_BHN.float()
    # Two blocks t apart have the distances from BLOCK (t - 1) + 1 to BLOCK (t + 1) - 1.
    some = F.max_pool1d(F.pad(distances, (BLOCK - 1, 0)), 2 * BLOCK - 1, BLOCK)
    closed = F.max_pool1d(F.pad(1 - distances, (BLOCK - 1, 0)), 2 * BLOCK - 1, BLOCK)
    return some > 0, closed == 0


def _blocks_of_edges(edges_BE2: Tensor, num_blocks: int) -> Tensor:
    """Which blocks hold an edge, bool (B, G, G)."""
    row_BE, column_BE = edges_BE2.unbind(-1)
    block_BE = row_BE // BLOCK * num_blocks + column_BE // BLOCK
    block_BE = torch.where(row_BE < 0, num_blocks**2, block_BE)
    found = torch.zeros(len(edges_BE2), num_blocks**2 + 1, dtype=torch.bool, device=row_BE.device)
    return found.scatter_(1, block_BE, True)[:, :-1].unflatten(1, (num_blocks, num_blocks))


def _edge_bits(mask: SparseMask) -> tuple[Tensor, ...]:
    """Edges as bits, of the blocks that hold any: slots (B, G, G), bits (B, S, 128, 16).

    Nothing where the mask has none.
    """
    if mask.edges_BE2 is None:
        return ()
    batch, num_tokens = mask.keep_BN.shape
    edges_BE2 = mask.edges_BE2.expand(batch, -1, -1)
    held_BGG = _blocks_of_edges(edges_BE2, num_tokens // BLOCK)
    slots_BGG = (held_BGG.flatten(1).cumsum(-1) * held_BGG.flatten(1)).view_as(held_BGG)
    row_BE, column_BE = edges_BE2.clamp_min(0).unbind(-1)
    slot_BE = slots_BGG[
        torch.arange(batch, device=row_BE.device)[:, None], row_BE // BLOCK, column_BE // BLOCK
    ]
    slot_BE = torch.where(edges_BE2[..., 0] < 0, 0, slot_BE)  # slot 0 is of no block
    byte_BE = (slot_BE * BLOCK + row_BE % BLOCK) * (BLOCK // BITS) + column_BE % BLOCK // BITS
    num_slots = 1 + int(held_BGG.flatten(1).sum(-1).max())
    bits = torch.zeros(batch, num_slots * BLOCK * BLOCK // BITS, dtype=torch.int32).to(byte_BE)
    bits.scatter_add_(1, byte_BE, 1 << (column_BE % BITS))
    bits[:, : BLOCK * BLOCK // BITS] = 0
    return slots_BGG, bits.to(torch.int16).view(batch, num_slots, BLOCK, BLOCK // BITS)


def _ordered(blocks_BHGG: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of blocks how many are set, and their places first: as a BlockMask has it."""
    order = blocks_BHGG.int().argsort(dim=-1, descending=True, stable=True)
    return blocks_BHGG.sum(-1, dtype=torch.int32), order.int()


def _run(tensors: tuple[Tensor | None, ...], window: int | None, scaling: float) -> Tensor:
    if torch.compiler.is_compiling():  # a model that is compiled as a whole
        return _attend(tensors, window, scaling)
    for tensor, axes in zip(tensors, DYNAMIC_AXES, strict=False):
        torch._dynamo.maybe_mark_dynamic(tensor, axes)
    return _compiled()(tensors, window, scaling)


def _attend(tensors: tuple[Any, ...], window: int | None, scaling: float) -> Tensor:
    """What is compiled: a function of tensors alone."""
    query, key, value, keep_BN, rows_BHN, columns_BHN, diagonals_BHN, *others = tensors
    blocks, edge_bits = others[:4], others[4:]

    def is_open(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        distance = (i - j).abs()
        opened = rows_BHN[b, h, i] | columns_BHN[b, h, j] | diagonals_BHN[b, h, distance]
        if edge_bits:
            slots_BGG, bits_BSTB = edge_bits
            slot = slots_BGG[b, i // BLOCK, j // BLOCK]
            byte = bits_BSTB[b, slot, i % BLOCK, j % BLOCK // BITS]
            opened = opened | ((byte >> (j % BITS)) & 1 != 0)
        if window is not None:
            opened = opened & (distance <= window)
        return opened & keep_BN[b, i] & keep_BN[b, j]

    block_mask = flex.BlockMask.from_kv_blocks(
        *blocks, BLOCK_SIZE=BLOCK, mask_mod=is_open, seq_lengths=(query.shape[2], key.shape[2]),
        compute_q_blocks=torch.is_grad_enabled(),
    )  # fmt: skip
    output = flex.flex_attention(query, key, value, block_mask=block_mask, scale=scaling)
    assert isinstance(output, Tensor)
    return output


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_attend, fullgraph=True)
