"""``sparsify``: the one place where patterns and executors meet a Hugging Face encoder."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import bidirectional_mask_function

from aaa.attention import EXECUTORS
from aaa.masks import SparseMask
from aaa.patterns.base import LayerInput, LayerSite, Pattern
from aaa.probe import find_self_attentions

IMPLEMENTATION = "adaptive_axis"  # our name among transformers' attention implementations

Model = TypeVar("Model", bound=PreTrainedModel)


class SparseSelfAttention(nn.Module):
    """What ``sparsify`` hangs into one self-attention, as its submodule ``sparse``.

    It owns the layer's copy of the pattern, is handed the layer's hidden states before the
    self-attention runs, and keeps the masks of the latest forward pass (several where layers share
    one module, as in ALBERT).
    """

    def __init__(self, pattern: Pattern, executor: str, calls_per_forward: int) -> None:
        super().__init__()
        self.pattern = pattern
        self.executor = executor
        self.hidden_BND: Tensor | None = None
        self.masks: deque[SparseMask] = deque(maxlen=calls_per_forward)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, keep_BN: Tensor, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        hidden_BND, self.hidden_BND = self.hidden_BND, None
        mask = self.pattern(LayerInput(keep_BN=keep_BN, hidden_BND=hidden_BND))
        # Gradient checkpointing runs the layer again inside backward; that is the same pass.
        if torch._C._current_graph_task_id() == -1:
            self.masks.append(mask)
        return EXECUTORS[self.executor](query, key, value, mask, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # Masks of the last pass hang on its graph: they are no part of a copied or pickled model.
        return {**self.__dict__, "hidden_BND": None, "masks": deque(maxlen=self.masks.maxlen)}


def sparsify(model: Model, pattern: Pattern, executor: str = "auto") -> Model:
    """Makes every self-attention of a Hugging Face encoder attend under ``pattern``.

    Each self-attention gets its own copy of the pattern as a submodule, so that gates are in
    ``model.parameters()`` and ``model.state_dict()``. Works for the families that go through
    transformers' attention interface.

    Args:
        model: an encoder, with or without a head. It is changed in place.
        pattern: for example ``Axis() | Local(2)``.
        executor: how attention is computed: ``dense`` (the reference), ``sdpa`` (PyTorch's fused
            attention, for patterns that are not being learned) or ``auto``. Only ``dense`` can
            return attention probabilities (``output_attentions=True``).

    Returns:
        The model it was given.

    Raises:
        ValueError: if the encoder cannot be served (the message names it and says why), is sparse
            already, or the executor is unknown. The model is then unchanged.
    """
    if not isinstance(pattern, Pattern):
        raise ValueError(f"sparsify takes a pattern such as Axis() | Local(2), not {pattern!r}")
    if executor not in EXECUTORS:
        raise ValueError(f"unknown executor {executor!r}; known executors: {', '.join(EXECUTORS)}")
    if any(True for _ in sparse_layers(model)):
        raise ValueError(
            f"this {type(model).__name__} is sparse already: sparsify a fresh one instead"
        )
    found = find_self_attentions(model)
    num_layers = sum(self_attention.calls for self_attention in found)
    layer = 0
    parts = []
    for self_attention in found:
        site = LayerSite(layer, num_layers, self_attention.hidden_size, self_attention.num_heads)
        parts.append(SparseSelfAttention(pattern.bind(site), executor, self_attention.calls))
        layer += self_attention.calls
    for self_attention, sparse in zip(found, parts, strict=True):
        module = self_attention.module
        module.sparse = sparse.to(model.device).train(module.training)
        module.register_forward_pre_hook(_hand_over_hidden_states, with_kwargs=True)
    model.set_attn_implementation(IMPLEMENTATION)
    return model


def sparse_layers(model: nn.Module) -> list[SparseSelfAttention]:
    """The parts that ``sparsify`` hung in, in layer order; empty for a dense model."""
    return [module for module in model.modules() if isinstance(module, SparseSelfAttention)]


def latest_masks(model: nn.Module) -> list[SparseMask]:
    """The masks of the model's latest forward pass, one per layer.

    Raises:
        ValueError: if the model is dense or has not run yet.
    """
    layers = sparse_layers(model)
    if not layers:
        raise ValueError(
            f"this {type(model).__name__} is dense: call sparsify(model, pattern) first"
        )
    masks = [mask for layer in layers for mask in layer.masks]
    if not masks:
        raise ValueError("this model has not run yet: its masks follow from its input")
    return masks


def gate_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that belong to patterns; they want their own learning rate and no decay."""
    return [parameter for layer in sparse_layers(model) for parameter in layer.parameters()]


def scale_gate_noise(model: nn.Module, scale: float) -> None:
    """Sets the factor of the noise with which gates are drawn in training (1 at the start)."""
    for layer in sparse_layers(model):
        for module in layer.modules():
            if isinstance(module, Pattern):
                module.noise_scale = scale


def _hand_over_hidden_states(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    module.sparse.hidden_BND = next(tensors)  # type: ignore[union-attr]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention function that transformers calls in place of its own."""
    sparse = getattr(module, "sparse", None)
    if sparse is None:
        raise ValueError(
            f"{type(module).__name__} has no pattern: it came after the call of sparsify, or its "
            "model shares the config object of a sparsified one (give each a copy of its own)"
        )
    if attention_mask is None:
        keep_BN = torch.ones(query.shape[0], key.shape[2], dtype=torch.bool, device=query.device)
    elif attention_mask.dim() == 2:
        keep_BN = attention_mask.bool()
    else:
        raise ValueError(
            "a sparse model takes an attention mask of shape (batch, tokens), 1 for real tokens; "
            f"got {tuple(attention_mask.shape)}"
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    output_BHND, probabilities = sparse(
        query, key, value, keep_BN, scaling=scaling, dropout=dropout
    )
    return output_BHND.transpose(1, 2).contiguous(), probabilities


def _padding_mask(
    *, attention_mask: Tensor | None = None, mask_function: Any = None, **_: Any
) -> Tensor | None:
    """The mask that transformers prepares for ``_attend``: the padding alone, (batch, tokens)."""
    if mask_function is not bidirectional_mask_function:
        raise ValueError(
            "a sparse model is a bidirectional encoder: causal and windowed masks are not served"
        )
    return attention_mask


AttentionInterface.register(IMPLEMENTATION, _attend)
AttentionMaskInterface.register(IMPLEMENTATION, _padding_mask)
