"""PyTorch's fused attention under the materialised mask, for masks that are not being learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.masks import SparseMask


def sdpa_attention(
    query_BHND: Tensor,
    key_BHND: Tensor,
    value_BHND: Tensor,
    mask: SparseMask,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, None]:
    """As ``dense_attention``, but gives no gradient to gates and returns no probabilities.

    Raises:
        ValueError: if a gate of the mask needs a gradient.
    """
    if mask.needs_gradient:
        raise ValueError(
            "executor 'sdpa' gives no gradient to the gates of a pattern that is being learned; "
            "use executor 'dense' or 'auto' in training"
        )
    output_BHND = F.scaled_dot_product_attention(
        query_BHND,
        key_BHND,
        value_BHND,
        attn_mask=_attention_mask(mask, query_BHND.dtype),
        dropout_p=dropout,
        scale=scaling,
    )
    return output_BHND, None


def _attention_mask(mask: SparseMask, dtype: torch.dtype) -> Tensor | None:
    """What opens and closes cells; for full attention only which keys are real, or nothing at all.

    Fused attention is fastest under no mask. (A graph must not depend on values. And only of rows
    and columns alone is it asked whether they are full: the answer costs a short text 5 % of its
    attention, and on a GPU a wait.)
    """
    axes_alone = mask.diagonals_BHK is None and mask.edges_BE2 is None
    if torch.compiler.is_compiling() or not (axes_alone and mask.is_full):
        return mask.as_bias(dtype)
    if mask.keep_BN.all():
        return None
    return mask.real_keys_BN[:, None, None, :]
