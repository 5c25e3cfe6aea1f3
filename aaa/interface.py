"""What transformers' attention interface hands over, read: padding, windows, shared heads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers.masking_utils import bidirectional_mask_function

LONGEST_WINDOW = 2**15


def window_of(mask_function: Callable[..., Tensor]) -> int | None:
    """The reach on each side of the window that a mask function of transformers opens.

    None where it opens every cell. The function is asked, not its arguments: what eager and SDPA
    attention obey is the mask, while the number beside it means different things (ModernBERT's
    ``sliding_window`` is this reach in its config and one more in its attention).

    Raises:
        ValueError: if the open cells are no window, as in causal attention.
    """
    if mask_function is bidirectional_mask_function:
        return None
    queries = torch.tensor([[0], [LONGEST_WINDOW]])
    keys = torch.arange(2 * LONGEST_WINDOW + 1).unsqueeze(0)
    open_cells = mask_function(0, 0, queries, keys)
    window = int(open_cells[0].sum()) - 1
    if not torch.equal(open_cells, (queries - keys).abs() <= window):
        raise ValueError("its attention is causal or has another mask of its own")
    return window if window < LONGEST_WINDOW else None


def real_tokens(attention_mask: Tensor | None, key_BHND: Tensor) -> Tensor:
    """True for real tokens, (B, N), from the padding mask that the encoder made of its input.

    Raises:
        ValueError: for a mask that says more than what is padding, or of another batch's shape.
    """
    batch, _, num_tokens, _ = key_BHND.shape
    if attention_mask is None:
        return key_BHND.new_ones(batch, num_tokens, dtype=torch.bool)
    if attention_mask.shape in ((batch, num_tokens), (1, num_tokens)):  # or one for all texts
        return attention_mask.bool().expand(batch, -1)
    if is_padding_alone(attention_mask) and attention_mask.is_floating_point():
        return attention_mask[:, 0, 0] == 0  # added to the scores, as LayoutLM does it
    raise ValueError(
        "a sparse model takes an attention mask of shape (batch, tokens), 1 for real tokens, here "
        f"({batch}, {num_tokens}); got {tuple(attention_mask.shape)}"
    )


def is_padding_alone(attention_mask: Tensor) -> bool:
    """Whether a mask of four dimensions, (B, 1, 1, N), says nothing but which keys are padding."""
    return attention_mask.dim() == 4 and attention_mask.shape[1:3] == (1, 1)


def repeat_heads(query_BHND: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for each head of the queries, where several share them (as in EuroBERT)."""
    repeats = query_BHND.shape[1] // key.shape[1]
    if repeats == 1:
        return key, value
    return key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
