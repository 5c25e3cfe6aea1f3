"""``auto``: the executor that is fastest for a mask, by thresholds that were measured.

Shape suffixes: B batch, H heads, N tokens, K distances, E edges.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from aaa.attention.bands import cells_a_query
from aaa.attention.dense import dense_attention
from aaa.attention.gathered import gathered_attention
from aaa.attention.sdpa import sdpa_attention
from aaa.masks import SparseMask

log = logging.getLogger(__name__)

EXECUTE = {"dense": dense_attention, "sdpa": sdpa_attention, "gathered": gathered_attention}
_said: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class GatheredCost:
    """What ``gathered`` costs beside the executor that holds N x N cells, in cells of that one.

    ``a_text + a_head (G - 1) + a_token N + a_cell C`` against N^2, for a text of N tokens of which
    C cells are computed by G heads with masks of their own (1 where heads share it).
    """

    a_text: float
    a_head: float
    a_token: float
    a_cell: float


# Fitted by hand to scripts/measure_auto.py (docs/performance.md): CPU time of one thread, 12 heads
# of 64, texts of 256 to 2,048 tokens.
AGAINST_SDPA = GatheredCost(a_text=60_000, a_head=0, a_token=150, a_cell=1.2)
AGAINST_DENSE = GatheredCost(a_text=30_000, a_head=30_000, a_token=100, a_cell=0.9)
# A single cell, whose key is fetched for it alone, in cells of a matrix product; by the same
# measure, 2 to 32 of them a query in texts of 1,024 to 4,096 tokens.
EDGE_CELLS = 48
LONGEST_DENSE = 1024  # tokens; beyond, several N x N cells a head would not fit for long


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
    spent = cost.a_text + cost.a_head * (_own_masks(mask) - 1) + cost.a_token * num_tokens
    if spent >= num_tokens**2:  # too short for gathered, whatever is open
        return _say(whole, mode, mask, "texts are short")
    if mask.has_holes:
        return _say(whole, mode, mask, "padding lies between tokens")
    if learned and num_tokens > LONGEST_DENSE:
        return _say("gathered", mode, mask, "dense would hold too much")
    share = float(computed_cells(mask).sum()) / max(1, num_texts * num_tokens**2)
    if spent + cost.a_cell * share * num_tokens**2 < num_tokens**2:
        return _say("gathered", mode, mask, f"it computes {share:.1%} of the cells")
    return _say(whole, mode, mask, f"gathered would compute {share:.1%} of the cells")


def _own_masks(mask: SparseMask) -> int:
    gates = (mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK)
    return max((gate.shape[1] for gate in gates if gate is not None), default=1)


def computed_cells(mask: SparseMask) -> Tensor:
    """About how many cells of a head ``gathered`` computes for each text, float (B,).

    The mean over heads that differ.
    """
    lengths_B = mask.lengths_B.float()
    if mask.window is not None:
        return lengths_B * lengths_B.clamp_max(2 * mask.window + 1)
    nothing_BH = lengths_B.new_zeros(1, 1)
    rows_BH, columns_BH = (
        nothing_BH if gate is None else gate.detach().sum(-1)
        for gate in (mask.rows_BHN, mask.columns_BHN)
    )
    bands_BH = nothing_BH if mask.diagonals_BHK is None else _band_cells(mask.diagonals_BHK)
    edges_B = nothing_BH if mask.edges_BE2 is None else (mask.edges_BE2[..., 0] >= 0).sum(-1)
    lengths_B1, edges_B1 = lengths_B.unsqueeze(-1), edges_B.view(-1, 1)
    cells_BH = lengths_B1 * (rows_BH + columns_BH + bands_BH) + EDGE_CELLS * edges_B1
    return torch.minimum(cells_BH, lengths_B1**2).mean(-1)


def _band_cells(diagonals_BHK: Tensor) -> Tensor:
    counts = [[cells_a_query(gates_K) for gates_K in gates_HK] for gates_HK in diagonals_BHK > 0]
    return torch.tensor(counts, dtype=torch.float, device=diagonals_BHK.device)


def _say(name: str, mode: str, mask: SparseMask, why: str) -> str:
    if (name, mode) not in _said:
        _said.add((name, mode))
        num_tokens, device = mask.keep_BN.shape[-1], mask.keep_BN.device.type
        log.info("attention by %s (%s): %d tokens on %s, %s", name, mode, num_tokens, device, why)
    return name
