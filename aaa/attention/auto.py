"""``auto``: the executor that is fastest for a mask, by thresholds that were measured.

Shape suffixes: B batch, H heads, N tokens, K distances, E edges.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from aaa.attention.dense import dense_attention
from aaa.attention.gathered import gathered_attention
from aaa.attention.passes import SLOT_COST
from aaa.attention.sdpa import sdpa_attention
from aaa.masks import SparseMask

log = logging.getLogger(__name__)

EXECUTE = {"dense": dense_attention, "sdpa": sdpa_attention, "gathered": gathered_attention}
_said: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class GatheredCost:
    """What ``gathered`` costs beside the executor that holds N x N cells, in cells of that one.

    ``a_text + a_token N + a_cell C`` for C cells computed in a text of N tokens, against N^2.
    """

    a_text: float
    a_token: float
    a_cell: float


# Fitted to scripts/benchmark_attention on a CPU (docs/performance.md): CPU time of one thread,
# 12 heads of 64, texts of 128 to 2,048 tokens, 1 to 50 % of the rows and of the columns open.
AGAINST_SDPA = GatheredCost(a_text=60_000, a_token=300, a_cell=1.0)
AGAINST_DENSE = GatheredCost(a_text=22_000, a_token=100, a_cell=0.5)


def auto_attention(
    query_BHND: Tensor,
    key_BHND: Tensor,
    value_BHND: Tensor,
    mask: SparseMask,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """By ``gathered`` where that is faster, else ``sdpa``, or ``dense`` if gates are learned.

    What was chosen and why is said in the log, once for each choice and mode. The choice reads the
    mask's values, so that ``torch.compile`` breaks its graph here; a named executor has no such
    break.
    """
    grad = torch.is_grad_enabled() and query_BHND.requires_grad
    name = choose(mask, grad)
    return EXECUTE[name](query_BHND, key_BHND, value_BHND, mask, scaling, dropout)


@torch.compiler.disable
def choose(mask: SparseMask, grad: bool) -> str:
    """The name of the executor for a mask; ``grad`` says whether a backward pass will come."""
    learned = mask.needs_gradient
    whole, cost = ("dense", AGAINST_DENSE) if learned else ("sdpa", AGAINST_SDPA)
    mode = "gates being learned" if learned else "training" if grad else "inference"
    num_texts, num_tokens = mask.keep_BN.shape
    if num_tokens**2 <= cost.a_text:  # too short for gathered, whatever is open
        return _say(whole, mode, mask, "texts are short")
    cells = float(computed_cells(mask).sum())
    gathered = num_texts * (cost.a_text + cost.a_token * num_tokens) + cost.a_cell * cells
    share = cells / max(1, num_texts * num_tokens**2)
    if gathered < num_texts * num_tokens**2:
        if mask.has_holes:
            return _say(whole, mode, mask, "padding lies between tokens")
        return _say("gathered", mode, mask, f"it computes {share:.1%} of the cells")
    return _say(whole, mode, mask, f"gathered would compute {share:.1%} of the cells")


def computed_cells(mask: SparseMask) -> Tensor:
    """About how many cells of a head ``gathered`` computes for each text, float (B,)."""
    lengths_B = mask.lengths_B.float()
    if mask.window is not None:
        return lengths_B * lengths_B.clamp_max(2 * mask.window + 1)
    nothing = lengths_B.new_zeros(())
    rows_B, columns_B, diagonals_B = (
        nothing if gate is None else gate.detach().sum(-1).amax(1)
        for gate in (mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK)
    )
    edges_B = nothing if mask.edges_BE2 is None else (mask.edges_BE2[..., 0] >= 0).sum(-1)
    cells_B = lengths_B * (rows_B + columns_B + 2 * diagonals_B) + SLOT_COST * edges_B
    return torch.minimum(cells_B, lengths_B**2)


def _say(name: str, mode: str, mask: SparseMask, why: str) -> str:
    if (name, mode) not in _said:
        _said.add((name, mode))
        num_tokens, device = mask.keep_BN.shape[-1], mask.keep_BN.device.type
        log.info("attention by %s (%s): %d tokens on %s, %s", name, mode, num_tokens, device, why)
    return name
