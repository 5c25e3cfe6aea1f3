"""The reference executor: what sparse attention means, cell by cell.

``probability_ij = mask_ij exp(score_ij) / sum_k mask_ik exp(score_ik)``. Multiplying and
renormalising, instead of adding a large negative number to the scores of closed cells, gives a
closed cell's gate a gradient too, and open ones a bounded one. (Eq. 5 of the paper adds C B with
C large and negative and B = 1 for open cells, which has the sign wrong: closed cells are to be
masked.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.masks import SparseMask

# A closed cell's exp(score) is counted against the largest score among the open cells of its row,
# and by at most this factor (e^5), so that one closed cell cannot own the whole gradient.
MAX_CLOSED_SCORE = 5.0


def dense_attention(
    query_BHND: Tensor,
    key_BHND: Tensor,
    value_BHND: Tensor,
    mask: SparseMask,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Attention under ``mask`` with all N x N scores in memory.

    Args:
        query_BHND, key_BHND, value_BHND: D is the head's size here.
        scaling: factor of the scores.
        dropout: share of probabilities set to 0, after renormalising, as in BERT; 0 for none.

    Returns:
        The output, (B, H, N, D), and the probabilities before dropout, (B, H, N, N), both in the
        dtype of ``value_BHND``. Rows of padding hold finite values without meaning.
    """
    scores_BHNN = (query_BHND @ key_BHND.transpose(-1, -2)).float() * scaling
    cells_BHNN = open_padding_rows(mask)
    probabilities_BHNN = masked_softmax(scores_BHNN, cells_BHNN).to(value_BHND.dtype)
    dropped_BHNN = F.dropout(probabilities_BHNN, dropout) if dropout else probabilities_BHNN
    return dropped_BHNN @ value_BHND, probabilities_BHNN


def open_padding_rows(mask: SparseMask) -> Tensor:
    """``mask.dense()`` with the rows of padding open to all real tokens, so that no row is empty.

    In a sample that is nothing but padding they are open to everything.
    """
    padding_B1N1 = ~mask.keep_BN[:, None, :, None]
    keys_BN = mask.keep_BN | ~mask.keep_BN.any(-1, keepdim=True)
    return mask.dense() + (padding_B1N1 & keys_BN[:, None, None, :])


def masked_softmax(scores: Tensor, cells: Tensor) -> Tensor:
    """``cells * exp(scores)``, each row divided by its sum; differentiable in both."""
    highest_open = scores.masked_fill(cells == 0, -torch.inf).amax(-1, keepdim=True)
    highest_open = highest_open.detach().clamp_min(torch.finfo(scores.dtype).min)
    weights = (scores - highest_open).clamp_max(MAX_CLOSED_SCORE).exp() * cells
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
