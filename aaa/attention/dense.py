"""The reference executor: what sparse attention means, cell by cell.

``probability_ij = mask_ij exp(score_ij) / sum_k mask_ik exp(score_ik)``. Multiplying and
renormalising, instead of adding a large negative number to the scores of closed cells, gives a
closed cell's gate a gradient too, and open ones a bounded one. (Eq. 5 of the paper adds C B with
C large and negative and B = 1 for open cells, which has the sign wrong: closed cells are to be
masked.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from aaa.masks import SparseMask

# A closed cell's score is counted against the largest one among the open cells of its row, and
# above it by at most this: no closed cell counts for more than the open one that counts most.
# With more than 0 the gradient of gates is mostly that of single closed cells, which says what
# opening them a little would change, and opening is all or nothing.
MAX_CLOSED_SCORE = 0.0


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
    # Scaled first: products of 16 bits would overflow where scores do not.
    scores_BHNN = ((query_BHND * scaling) @ key_BHND.transpose(-1, -2)).float()
    cells_BHNN = open_padding_rows(mask)
    probabilities_BHNN = masked_softmax(scores_BHNN, cells_BHNN).to(value_BHND.dtype)
    dropped_BHNN = F.dropout(probabilities_BHNN, dropout) if dropout else probabilities_BHNN
    return dropped_BHNN @ value_BHND, probabilities_BHNN


def open_padding_rows(mask: SparseMask) -> Tensor:
    """``mask.dense()`` with the rows of padding open to all real tokens, so that no row is empty.

    In a sample that is nothing but padding they are open to everything.
    """
    padding_B1N1 = ~mask.keep_BN[:, None, :, None]
    return mask.dense() + (padding_B1N1 & mask.real_keys_BN[:, None, None, :])


def closed_bias(opened: Tensor) -> Tensor:
    """0 where cells are open and -inf where they are closed, for scores to be added to.

    To fill scores by a mask that heads share takes up to ten times as long on a CPU.
    """
    return torch.where(opened, 0.0, -torch.inf)


def masked_softmax(scores: Tensor, cells: Tensor) -> Tensor:
    """``cells * exp(scores)``, each row divided by its sum; differentiable once in both.

    ``cells`` may have 1 in place of leading dimensions of ``scores``.
    """
    return _MaskedSoftmax.apply(scores, cells)


class _MaskedSoftmax(torch.autograd.Function):
    """By hand, since autograd would keep, and go over, three times as many N x N tensors."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, cells: Tensor) -> Tensor:
        weights = scores + closed_bias(cells > 0)
        highest_open = weights.amax(-1, keepdim=True)
        highest_open.clamp_min_(torch.finfo(scores.dtype).min)
        torch.sub(scores, highest_open, out=weights).clamp_max_(MAX_CLOSED_SCORE).exp_()
        probabilities = weights * cells
        sums = probabilities.sum(-1, keepdim=True)
        sums.masked_fill_(sums == 0, torch.inf)  # an empty row has no probabilities, no gradient
        probabilities.div_(sums)
        ctx.save_for_backward(weights, cells, sums, probabilities)
        return probabilities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        # p = w c / s with s = sum(w c) and w = exp(score): with m = sum(g p), of the score it is
        # p (g - m), of the cell w (g - m) / s. Open scores never reach the clamp, and nothing
        # depends on a closed one's.
        weights, cells, sums, probabilities = ctx.saved_tensors
        of_probabilities = gradient - (gradient * probabilities).sum(-1, keepdim=True)
        of_scores = of_probabilities * probabilities
        if not ctx.needs_input_grad[1]:
            return of_scores, None
        of_cells = of_probabilities.mul_(weights).div_(sums)
        return of_scores, of_cells.sum_to_size(cells.shape)
