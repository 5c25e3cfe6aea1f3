"""PyTorch's fused attention under the materialised mask, for masks that are not being learned."""

from __future__ import annotations

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
    # Rows of padding are open to all real tokens: no row may be empty.
    keys_BN = mask.keep_BN | ~mask.keep_BN.any(-1, keepdim=True)
    padding_BNN = ~mask.keep_BN.unsqueeze(-1) & keys_BN.unsqueeze(-2)
    cells_BHNN = mask.open_cells() | padding_BNN.unsqueeze(1)
    output_BHND = F.scaled_dot_product_attention(
        query_BHND, key_BHND, value_BHND, attn_mask=cells_BHNN, dropout_p=dropout, scale=scaling
    )
    return output_BHND, None
