"""PyTorch's FlexAttention under a block mask, for masks that are not being learned.

Which blocks of 128 x 128 cells are touched follows from diagonals, rows, columns and edges
directly: nothing of N x N is ever built, and the map of blocks has 16,384 times fewer entries.

One compilation serves all lengths. FlexAttention is known to compile anew for each length
(https://github.com/pytorch/pytorch/issues/141486). Here texts are padded to whole blocks, sizes of
batch and text are dynamic, and the block mask is made of tensors inside what is compiled, anew for
each batch: so none can be used for another length by mistake. (Padding to a few fixed lengths
instead would compile for each of them, and compute their whole map for every shorter text.)

On a CPU it serves inference. It ran on an H100, inference and training, with and without edges. It
is for windows, globals and few edges: scattered rows and columns touch every block, which is then
computed and looked up cell by cell (docs/performance.md).

Shape suffixes: G blocks of the text, S blocks that hold edges.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from aaa.masks import SparseMask

BLOCK = 128
BITS = 8  # cells of an edge block that one byte holds
REAL, ROW, COLUMN, DIAGONAL = 1, 2, 4, 8  # bits of a token; the last is of the distance so long
# What cells look up is kept in shared memory for every stage of a pipeline: where that has four
# bytes, as for edges, the three stages of the default take more than an H100 has.
GPU_OPTIONS: Any = {"num_stages": 2}
# Of the tensors that are compiled for: samples, tokens and blocks, but neither heads nor features.
DYNAMIC_AXES = (
    *[(0, 2)] * 4, *[(0, 2), (0, 2, 3)] * 2, (0, 1),
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
    padded = WholeBlocks.of(mask, num_heads)
    extra = padded.keep_BN.shape[1] - num_tokens
    inputs = (
        F.pad(x.to(value_BHND.dtype), (0, 0, 0, extra)) for x in (query_BHND, key_BHND, value_BHND)
    )
    blocks = (part for kind in touched_blocks(padded) for part in _ordered(kind))
    tensors = (*inputs, _token_bits(padded), *blocks, *_edge_bits(padded))
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


class WholeBlocks(NamedTuple):
    """A mask over whole blocks: bool gates of every token or distance, sample and head."""

    keep_BN: Tensor
    rows_BHN: Tensor
    columns_BHN: Tensor
    diagonals_BHN: Tensor
    edges_BE2: Tensor | None
    window: int | None

    @classmethod
    def of(cls, mask: SparseMask, num_heads: int) -> WholeBlocks:
        """The same mask with padding up to whole blocks."""
        batch, num_tokens = mask.keep_BN.shape
        # Two blocks at least: a size of 1 would be compiled apart.
        length = max(2 * BLOCK, num_tokens + -num_tokens % BLOCK)
        real_B1N = F.pad(mask.keep_BN, (0, length - num_tokens)).unsqueeze(1)

        def full_size(gates: Tensor | None) -> Tensor:
            if gates is None:
                return real_B1N.new_zeros(batch, num_heads, length)
            opened = gates.detach()[..., :num_tokens] > 0
            opened = F.pad(opened, (0, length - opened.shape[-1]))
            return opened.expand(batch, num_heads, -1).contiguous()

        return cls(
            real_B1N.squeeze(1),
            full_size(mask.rows_BHN) & real_B1N,
            full_size(mask.columns_BHN) & real_B1N,
            full_size(mask.diagonals_BHK),
            mask.edges_BE2,
            mask.window,
        )


def touched_blocks(mask: WholeBlocks) -> tuple[Tensor, Tensor]:
    """Blocks of which some cells are open but not all, and those of which all are.

    Bool, (B, H, G, G) each.
    """
    keep_BGT, rows_BHGT, columns_BHGT = (part.unflatten(-1, (-1, BLOCK)) for part in mask[:3])
    blocks_G = torch.arange(keep_BGT.shape[1], device=mask.keep_BN.device)
    apart_GG = (blocks_G[:, None] - blocks_G[None, :]).abs()
    some_BHG, all_BHG = _diagonals_by_block(mask.diagonals_BHN)

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


def _token_bits(mask: WholeBlocks) -> Tensor:
    """All of a mask but its edges in one tensor, int8 (B, H, N): what a cell looks up.

    (One, since in what is compiled for a CPU the names of more than ten sizes collide; of single
    bytes, since a GPU keeps what the cells of a few blocks look up in its shared memory.)
    """
    bits = mask.rows_BHN * ROW + mask.columns_BHN * COLUMN + mask.diagonals_BHN * DIAGONAL
    return (bits + mask.keep_BN.unsqueeze(1) * REAL).to(torch.int8)


def _blocks_of_edges(edges_BE2: Tensor, num_blocks: int) -> Tensor:
    """Which blocks hold an edge, bool (B, G, G)."""
    row_BE, column_BE = edges_BE2.unbind(-1)
    block_BE = row_BE // BLOCK * num_blocks + column_BE // BLOCK
    block_BE = torch.where(row_BE < 0, num_blocks**2, block_BE)
    found = torch.zeros(len(edges_BE2), num_blocks**2 + 1, dtype=torch.bool, device=row_BE.device)
    return found.scatter_(1, block_BE, True)[:, :-1].unflatten(1, (num_blocks, num_blocks))


def _edge_bits(mask: WholeBlocks) -> tuple[Tensor, ...]:
    """Edges as bits, of the blocks that hold any: nothing, where the mask has none.

    Else one tensor, int32 (B, G G + S 128 16): the slot of each block, then the bits of each slot.
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
    return (torch.cat([slots_BGG.flatten(1).int(), bits], -1),)


def _ordered(blocks_BHGG: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row of blocks how many are set, and their places first: as a BlockMask has it."""
    order = blocks_BHGG.int().argsort(dim=-1, descending=True, stable=True)
    return blocks_BHGG.sum(-1, dtype=torch.int32), order.int()


def _run(tensors: tuple[Tensor, ...], window: int | None, scaling: float) -> Tensor:
    if torch.compiler.is_compiling():  # a model that is compiled as a whole
        return _attend(tensors, window, scaling)
    for tensor, axes in zip(tensors, DYNAMIC_AXES, strict=False):
        torch._dynamo.maybe_mark_dynamic(tensor, axes)
        # Else a second model's heads and features would become dynamic too, and in what is
        # compiled for a CPU the names of so many sizes collide.
        torch._dynamo.mark_static(tensor, [a for a in range(tensor.dim()) if a not in axes])
    from torch._inductor.exc import InductorError  # takes seconds

    try:
        return _compiled()(tensors, window, scaling)
    except InductorError as error:
        device = tensors[0].device
        raise RuntimeError(
            f"executor 'flex': PyTorch could not compile FlexAttention for this mask on {device} "
            "(its C++ backend confuses names of many sizes); use 'auto'"
        ) from error


def _attend(tensors: tuple[Any, ...], window: int | None, scaling: float) -> Tensor:
    """What is compiled: a function of tensors alone."""
    query, key, value, bits_BHN, *others = tensors
    partial_counts, partial_order, full_counts, full_order, *edge_bits = others
    num_blocks = partial_counts.shape[-1]

    def is_open(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        distance = (i - j).abs()
        of_row, of_column, of_distance = (bits_BHN[b, h, at] for at in (i, j, distance))
        opened = ((of_row & ROW) | (of_column & COLUMN) | (of_distance & DIAGONAL)) != 0
        if edge_bits:
            (slots_and_bits_BX,) = edge_bits
            slot = slots_and_bits_BX[b, i // BLOCK * num_blocks + j // BLOCK]
            row = num_blocks * num_blocks + (slot * BLOCK + i % BLOCK) * (BLOCK // BITS)
            byte = slots_and_bits_BX[b, row + j % BLOCK // BITS]
            opened = opened | ((byte >> (j % BITS)) & 1 != 0)
        if window is not None:
            opened = opened & (distance <= window)
        return opened & (of_row & of_column & REAL != 0)

    block_mask = flex.BlockMask.from_kv_blocks(
        partial_counts, partial_order, full_counts, full_order,
        BLOCK_SIZE=BLOCK, mask_mod=is_open, seq_lengths=(query.shape[2], key.shape[2]),
        compute_q_blocks=torch.is_grad_enabled(),
    )  # fmt: skip
    output = flex.flex_attention(
        query,
        key,
        value,
        block_mask=block_mask,
        scale=scaling,
        kernel_options=GPU_OPTIONS if query.is_cuda else None,
    )
    assert isinstance(output, Tensor)
    return output


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_attend, fullgraph=True)
