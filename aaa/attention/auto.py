"""``auto``: the executor that is fastest for a mask, by thresholds that were measured.

Shape suffixes: B batch, H heads, N tokens, K distances, E edges.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from aaa.attention.bands import cells_a_query
from aaa.attention.dense import dense_attention
from aaa.attention.gathered import gathered_attention
from aaa.attention.sdpa import LONGEST_PLAIN, sdpa_attention
from aaa.attention.slots import SLOT_CELLS
from aaa.attention.triton_axis import serves, triton_attention
from aaa.masks import SparseMask

log = logging.getLogger(__name__)

EXECUTE = {
    "dense": dense_attention,
    "sdpa": sdpa_attention,
    "gathered": gathered_attention,
    "triton": triton_attention,
}
_said: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class GatheredCost:
    """What ``gathered`` costs beside the executor that holds N x N cells, in cells of that one.

    ``a_text + a_head (G - 1) + a_token N + a_cell C`` against N^2, for a text of N tokens of which
    C cells are computed by G heads with masks of their own (1 where heads share it); of 12 heads
    of 64.
    """

    a_text: float
    a_head: float
    a_token: float
    a_cell: float


# Fitted to scripts/measure_auto.py (docs/performance.md) on one thread and on two, 12 heads of 64,
# texts of 128 to 1,024 tokens; AGAINST_SDPA behind another attention, where Python is cold.
# AGAINST_FUSED is beyond LONGEST_PLAIN tokens, where ``sdpa`` is PyTorch's kernel under the mask.
AGAINST_SDPA = GatheredCost(a_text=30_000, a_head=9_000, a_token=0, a_cell=2.0)
AGAINST_FUSED = replace(AGAINST_SDPA, a_cell=1.5)
AGAINST_DENSE = GatheredCost(a_text=25_000, a_head=9_000, a_token=100, a_cell=1.1)
FITTED_HEADS, FITTED_SIZE = 12, 64
# Texts and masks cost as much whatever the heads, and so more cells where those are few or small.
# A cell's softmax takes as long as so many features.
SOFTMAX_SIZE = 40
# glibc asks the system for every block of more than 32 MB, which clears its pages: beyond so many
# cells (float32, of all texts and heads) ``dense`` takes so many times as long for each.
MOST_KEPT = 2**23
UNKEPT = 1.6
# One text's cells are not counted, unless gates are learned, where gathered takes more than this
# share of the time before any is open: counting takes longer than what could be saved.
WORTH_COUNTING = 0.65
# What it costs a text to have any single cells, beside ``SLOT_CELLS`` for each.
ANY_EDGES = 35_000
LONGEST_DENSE = 1024  # tokens; beyond, several N x N cells a head would not fit for long
# On a GPU: tokens from which the kernels are faster than sdpa or dense (an H100, one text of 12
# heads of 64 in bfloat16, 3 % of the cells open), and the share of open cells up to which they are
# taken, a guess. ``gathered``, which waits for the GPU in every step, is only for what the kernels
# do not serve and where a map of all cells would not fit for long.
TRITON_FROM = {"inference": 1024, "training": 4096, "gates being learned": 2048}
MOST_OPEN = 0.25
LONGEST_MAP = 8192


def auto_attention(
    query_BHND: Tensor,
    key_BHND: Tensor,
    value_BHND: Tensor,
    mask: SparseMask,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """By what is fastest: for long texts with few open cells ``gathered``, or on a GPU ``triton``.

    Else by ``sdpa``, or ``dense`` if gates are learned.

    What was chosen and why is said in the log, once for each choice and mode. The choice reads the
    mask's values, so that ``torch.compile`` breaks its graph here; a named executor has no such
    break.
    """
    grad = torch.is_grad_enabled() and query_BHND.requires_grad
    # Only in a graph: the wrapper that breaks it takes a short text 2 to 5 % of its attention.
    select = _choose_outside if torch.compiler.is_compiling() else choose
    name = select(mask, grad, value_BHND.dtype, value_BHND.shape[1], value_BHND.shape[3])
    return EXECUTE[name](query_BHND, key_BHND, value_BHND, mask, scaling, dropout)


def choose(
    mask: SparseMask,
    grad: bool,
    dtype: torch.dtype = torch.float32,
    heads: int = FITTED_HEADS,
    size: int = FITTED_SIZE,
) -> str:
    """The name of the executor for a mask.

    Args:
        grad: whether a backward pass will come.
        dtype: of the values.
        heads, size: how many heads there are, and the size of one.
    """
    learned = mask.needs_gradient
    mode = "gates being learned" if learned else "training" if grad else "inference"
    on_gpu = mask.keep_BN.is_cuda
    if on_gpu:
        name, why = choose_on_gpu(mask, mode, dtype)
    else:
        name, why = choose_on_cpu(mask, heads, size)
    if (name, mode) not in _said:
        _said.add((name, mode))
        num_tokens, device = mask.keep_BN.shape[-1], mask.keep_BN.device.type
        log.info("attention by %s (%s): %d tokens on %s, %s", name, mode, num_tokens, device, why)
    return name


_choose_outside = torch.compiler.disable(choose)


def choose_on_gpu(mask: SparseMask, mode: str, dtype: torch.dtype) -> tuple[str, str]:
    """The executor, and why."""
    learned, num_tokens = mask.needs_gradient, mask.keep_BN.shape[1]
    whole = "dense" if learned else "sdpa"
    if num_tokens < TRITON_FROM[mode]:
        return whole, "texts are short"
    if mask.has_holes:
        return whole, "padding lies between tokens"
    if not serves(mask, dtype):
        is_long = num_tokens > (LONGEST_DENSE if learned else LONGEST_MAP)
        return "gathered" if is_long else whole, "the kernels do not serve this mask or dtype"
    if learned:  # whatever is open, so that nothing is counted
        return "triton", "dense would hold too much"
    # Not ``kept_cells``, which is exact: it starts ten kernels for every 16 distances, and for a
    # window of 256 that takes longer than the attention.
    lengths = mask.lengths_B.tolist()
    cells = sum(computed_cells(mask, lengths, twice_each_distance))
    share = cells / max(1, sum(length**2 for length in lengths))
    return whole if share > MOST_OPEN else "triton", f"at most {share:.1%} of the cells are open"


def choose_on_cpu(mask: SparseMask, heads: int, size: int) -> tuple[str, str]:
    """The executor, and why."""
    learned = mask.needs_gradient
    num_texts, num_tokens = mask.keep_BN.shape
    of_sdpa = AGAINST_SDPA if num_tokens <= LONGEST_PLAIN else AGAINST_FUSED
    whole, cost = ("dense", AGAINST_DENSE) if learned else ("sdpa", of_sdpa)
    constant = FITTED_HEADS / heads * (FITTED_SIZE + SOFTMAX_SIZE) / (size + SOFTMAX_SIZE)
    spent = constant * (cost.a_text + cost.a_head * (_own_masks(mask) - 1))
    spent += cost.a_token * num_tokens
    of_whole = float(num_tokens**2)
    if learned and num_texts * heads * num_tokens**2 > MOST_KEPT:
        of_whole *= UNKEPT
    if spent >= of_whole * (WORTH_COUNTING if num_texts == 1 and not learned else 1):
        return whole, "texts are short"
    if not mask.is_unpadded and mask.has_holes:
        return whole, "padding lies between tokens"
    if learned and num_tokens > LONGEST_DENSE:
        return "gathered", "dense would hold too much"
    most = num_texts * min(num_tokens**2, (of_whole - spent) / cost.a_cell)
    lengths = num_texts * [num_tokens] if mask.is_unpadded else mask.lengths_B.tolist()
    cells = sum(computed_cells(mask, lengths, partial(in_blocks, num_tokens), most))
    share = f"{cells / (num_texts * num_tokens**2):.1%}"
    if cells < most:
        return "gathered", f"it computes {share} of the cells"
    return whole, f"gathered would compute {share} of the cells"


def _own_masks(mask: SparseMask) -> int:
    heads = 1
    for gate in (mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK):
        if gate is not None:
            heads = max(heads, gate.shape[1])
    return heads


def computed_cells(
    mask: SparseMask,
    lengths: Sequence[int],
    of_diagonals: Callable[[Tensor], list[list[float]]],
    enough: float = math.inf,
) -> list[float]:
    """About how many cells of a head are computed for each text.

    The mean over heads that differ; a cell of several parts counts for each of them. In plain
    numbers, and in few operations: between two attentions each takes a short text's 0.5 %.

    Args:
        lengths: of the texts, ``mask.lengths_B``.
        of_diagonals: how many cells a query has in the diagonals whose gates, (B, H, K), it gets;
            by text and head.
        enough: if diagonals alone have so many cells in all texts, nothing else is counted.
    """
    if mask.window is not None:
        return [length * min(length, 2 * mask.window + 1) for length in lengths]

    def of_texts(counts: Sequence[Sequence[float]]) -> list[float]:
        return [sum(heads) / len(heads) for heads in counts] * (len(lengths) // len(counts))

    cells = [0.0] * len(lengths)
    if mask.diagonals_BHK is not None:
        bands = of_texts(of_diagonals(mask.diagonals_BHK))
        cells = [length * keys for length, keys in zip(lengths, bands, strict=True)]
    if sum(cells) >= enough:
        return cells
    for gate in (mask.rows_BHN, mask.columns_BHN):
        if gate is not None:
            tokens = of_texts(gate.sum(-1).tolist())
            cells = [own + n * keys for own, n, keys in zip(cells, lengths, tokens, strict=True)]
    if mask.edges_BE2 is not None:
        edges = of_texts((mask.edges_BE2[..., :1] >= 0).sum(1).tolist())
        cells = [
            own + SLOT_CELLS * number + ANY_EDGES for own, number in zip(cells, edges, strict=True)
        ]
    return [min(own, n**2) for own, n in zip(cells, lengths, strict=True)]


def in_blocks(num_tokens: int, diagonals_BHK: Tensor) -> list[list[float]]:
    """What ``gathered`` computes: bands, in whole blocks, and scattered diagonals."""
    gates_BHK = diagonals_BHK.tolist()
    return [[cells_a_query(tuple(g), num_tokens) for g in gates_HK] for gates_HK in gates_BHK]


def twice_each_distance(diagonals_BHK: Tensor) -> list[list[float]]:
    """The cells themselves: one on either side of a query."""
    cells: list[list[float]] = (2 * diagonals_BHK.sum(-1)).tolist()
    return cells
