"""PyTorch's attention under the materialised mask, for masks that are not being learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.attention.memory import keep_freed_memory
from aaa.masks import SparseMask

# Tokens, and scores of all texts and heads, up to which plain products on several threads take 0.6
# to 0.9 of the fused kernel's time (measured on two; on one they are no faster).
LONGEST_PLAIN = 160
MOST_SCORES = 2**21


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
    attention_mask = _attention_mask(mask, query_BHND.dtype)
    if attention_mask is not None and not dropout and _is_faster_plain(query_BHND, attention_mask):
        keep_freed_memory()
        scores_BHNN = (query_BHND * scaling) @ key_BHND.mT
        scores_BHNN += attention_mask
        return scores_BHNN.softmax(-1) @ value_BHND, None
    output_BHND = F.scaled_dot_product_attention(
        query_BHND,
        key_BHND,
        value_BHND,
        attn_mask=attention_mask,
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
    if mask.is_unpadded:
        return None
    return mask.real_keys_BN[:, None, None, :]


def _is_faster_plain(query_BHND: Tensor, attention_mask: Tensor) -> bool:
    """Whether the texts are short and few, on a CPU; not in a graph, which is for all lengths."""
    if torch.compiler.is_compiling() or not query_BHND.is_cpu:
        return False
    num_tokens = query_BHND.shape[2]
    if num_tokens > LONGEST_PLAIN or query_BHND.shape[:3].numel() * num_tokens > MOST_SCORES:
        return False
    in_32_bits = query_BHND.dtype == attention_mask.dtype == torch.float32
    return in_32_bits and not torch.is_autocast_enabled("cpu") and torch.get_num_threads() > 1
