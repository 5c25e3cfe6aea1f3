"""PyTorch's attention under the materialised mask, for masks that are not being learned."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from aaa.attention.memory import keep_freed_memory
from aaa.masks import SparseMask

# Tokens of a text up to which plain products on several threads take 0.5 to 1.0 of the fused
# kernel's time (measured on two; on one they are no faster), so many scores at a time.
LONGEST_PLAIN = 512
SCORES_AT_ONCE = 2**20  # 4 MB, which a cache holds
# The same where gradients are on and autograd keeps all scores.
LONGEST_RECORDED = 160
MOST_RECORDED = 2**21


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
    products = None if attention_mask is None or dropout else _products(query_BHND, attention_mask)
    if products is not None:
        keep_freed_memory()
        return products(query_BHND, key_BHND, value_BHND, attention_mask, scaling), None
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


def _products(query_BHND: Tensor, attention_mask: Tensor) -> Callable[..., Tensor] | None:
    """Plain products where they are faster than the fused kernel.

    That is on a CPU, and not in a graph, which is for all lengths.
    """
    if torch.compiler.is_compiling() or not query_BHND.is_cpu or torch.get_num_threads() == 1:
        return None
    in_32_bits = query_BHND.dtype == attention_mask.dtype == torch.float32
    if not in_32_bits or torch.is_autocast_enabled("cpu"):
        return None
    batch, num_heads, num_tokens = query_BHND.shape[:3]
    # torch.func has no rules for what writes to given memory.
    if not torch.is_grad_enabled() and torch._C._functorch.peek_interpreter_stack() is None:
        return _in_place if num_tokens <= LONGEST_PLAIN else None
    is_small = batch * num_heads * num_tokens**2 <= MOST_RECORDED
    return _recorded if num_tokens <= LONGEST_RECORDED and is_small else None


def _recorded(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, bias: Tensor, scaling: float
) -> Tensor:
    scores_BHNN = (query_BHND * scaling) @ key_BHND.mT
    scores_BHNN += bias
    return scores_BHNN.softmax(-1) @ value_BHND


def _in_place(
    query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor, bias: Tensor, scaling: float
) -> Tensor:
    """Some texts, or some heads of one, at a time, over scores that the next ones write over."""
    batch, num_heads, num_tokens = query_BHND.shape[:3]
    threads = torch.get_num_threads()
    at_once = SCORES_AT_ONCE // max(1, num_tokens**2)
    texts = max(1, min(batch, at_once // num_heads))
    heads = min(num_heads, threads * max(1, at_once // threads))
    output_BHND = torch.empty_like(value_BHND, memory_format=torch.contiguous_format)
    scores_BHNN = query_BHND.new_empty(texts, heads, num_tokens, num_tokens)
    bias_BHNN = bias.expand(batch, num_heads, -1, -1)
    for text in range(0, batch, texts):
        for head in range(0, num_heads, heads):
            own = slice(text, text + texts), slice(head, head + heads)
            queries, keys, values = (
                x_BHND[own].flatten(0, 1) for x_BHND in (query_BHND, key_BHND, value_BHND)
            )
            scores = scores_BHNN[: batch - text, : num_heads - head].copy_(bias_BHNN[own])
            scores = scores.view(len(queries), num_tokens, num_tokens)
            scores.baddbmm_(queries, keys.mT, alpha=scaling)
            torch.softmax(scores, -1, out=scores)
            torch.bmm(scores, values, out=output_BHND[own].view(values.shape))
    return output_BHND
