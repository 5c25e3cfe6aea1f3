"""``sparsify``: the one place where patterns and executors meet a Hugging Face encoder."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import bidirectional_mask_function

from aaa.attention import EXECUTORS
from aaa.interface import real_tokens, repeat_heads
from aaa.masks import SparseMask
from aaa.names import known_name
from aaa.patterns.base import LayerInput, LayerSite, Pattern, TextInput
from aaa.probe import FoundSelfAttention, find_self_attentions
from aaa.record import KEY, make_record
from aaa.text_input import KEYWORD, check_text_input, hand_down_text_input

IMPLEMENTATION = "adaptive_axis"  # our name among transformers' attention implementations

Model = TypeVar("Model", bound=PreTrainedModel)


class SparseSelfAttention(nn.Module):
    """What ``sparsify`` hangs into one self-attention, as its submodule ``sparse``.

    It owns the layer's copy of the pattern, is handed the layer's hidden states before the
    self-attention runs, and keeps the masks of the latest forward pass (several where layers share
    one module, as in ALBERT). Where the layer has a ``window`` of its own, as in ModernBERT, its
    masks stay within it.
    """

    def __init__(
        self, pattern: Pattern, executor: str, calls_per_forward: int, window: int | None = None
    ) -> None:
        super().__init__()
        self.pattern = pattern
        self.executor = executor
        self.window = window
        self.handed = threading.local()  # several threads may serve with one model
        self.masks: deque[SparseMask] = deque(maxlen=calls_per_forward)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keep_BN: Tensor,
        text: TextInput,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if getattr(self, "_is_replica", False) and self.training and self.pattern.learnable:
            raise ValueError(
                "torch.nn.DataParallel keeps the masks of one device alone, so sparsity would be "
                "that of a part of the batch: train with DistributedDataParallel (torchrun)"
            )
        hidden_BND = self.hand_over(None)
        mask = replace(self.pattern(LayerInput(keep_BN, hidden_BND, text)), window=self.window)
        # Gradient checkpointing runs the layer again inside backward; that is the same pass. (A
        # compiled model does it within its own graph, in which no layer is called.)
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:
            self.masks.append(mask)
        return EXECUTORS[self.executor](query, key, value, mask, **kwargs)

    def hand_over(self, hidden_BND: Tensor | None) -> Tensor | None:
        """Hands it the hidden states of the pass to come; returns those that it had, if any."""
        before = getattr(self.handed, "hidden_BND", None)
        self.handed.hidden_BND = hidden_BND
        return before

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        """Gates that several layers share are saved once: transformers looks here for such."""
        return {name: name for name in self.state_dict()}

    def __getstate__(self) -> dict[str, Any]:
        # Masks of the last pass hang on its graph: they are no part of a copied or pickled model.
        state = {name: value for name, value in self.__dict__.items() if name != "handed"}
        return {**state, "masks": deque(maxlen=self.masks.maxlen)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.handed = threading.local()


def sparsify(model: Model, pattern: Pattern, executor: str = "auto") -> Model:
    """Makes every self-attention of a Hugging Face encoder attend under ``pattern``.

    Each self-attention gets its own copy of the pattern as a submodule, so that gates are in
    ``model.parameters()`` and ``model.state_dict()``. The pattern is noted in ``model.config``, so
    that what ``model.save_pretrained`` writes, ``load_sparse`` reads. Works for encoders
    that go through transformers' attention interface and add nothing of their own to the scores.

    Args:
        model: an encoder, with or without a head. It is changed in place.
        pattern: for example ``Axis() | Local(2)``.
        executor: how attention is computed, one of ``aaa.attention.EXECUTORS``: ``auto``, which
            chooses; ``dense`` (the reference); ``gathered`` (the open cells and no others);
            ``sdpa`` and ``flex`` (PyTorch's fused and its block-sparse attention, for patterns
            that are not being learned); ``triton`` (axes and diagonals on GPUs); ``exportable``
            (inference in one graph for all lengths). Only ``dense`` can return attention
            probabilities (``output_attentions=True``).

    Returns:
        The model it was given.

    Raises:
        ValueError: if the encoder cannot be served (the message names it and says why), is sparse
            already, or the executor is unknown. The model is then unchanged.
    """
    if not isinstance(pattern, Pattern):
        raise ValueError(f"sparsify takes a pattern such as Axis() | Local(2), not {pattern!r}")
    check_executor(executor)
    if any(True for _ in sparse_layers(model)):
        raise ValueError(
            f"this {type(model).__name__} is sparse already: sparsify a fresh one instead"
        )
    record = make_record(pattern, executor)
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) == IMPLEMENTATION:
        model.set_attn_implementation("eager")  # a new model of a sparse one's config
    found = find_self_attentions(model)
    check_text_input(model, pattern)
    parts = _bind(pattern, executor, found)
    for self_attention, sparse in zip(found, parts, strict=True):
        module = self_attention.module
        module.sparse = sparse.to(model.device).train(module.training)
        module.register_forward_pre_hook(_hand_over_hidden_states, with_kwargs=True)
        module.register_forward_hook(_check_it_was_sparse)
    hand_down_text_input(model, pattern)
    model.set_attn_implementation(IMPLEMENTATION)
    setattr(model.config, KEY, record)
    return model


def check_executor(name: str) -> None:
    """Raises a ValueError for what is no executor, with those that there are."""
    known_name(name, EXECUTORS, "executor")


def _bind(
    pattern: Pattern, executor: str, found: list[FoundSelfAttention]
) -> list[SparseSelfAttention]:
    """A part with its own copy of the pattern for each self-attention, in layer order."""
    num_layers = sum(self_attention.calls for self_attention in found)
    shared: dict[Pattern, Any] = {}
    parts: list[SparseSelfAttention] = []
    layer = 0
    for one in found:
        site = LayerSite(layer, num_layers, one.hidden_size, one.num_heads, one.calls, shared)
        parts.append(SparseSelfAttention(pattern.bind(site), executor, one.calls, one.window))
        layer += one.calls
    return parts


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
    gates = (parameter for layer in sparse_layers(model) for parameter in layer.parameters())
    return list(dict.fromkeys(gates))  # once, those too that several layers share


def scale_gate_noise(model: nn.Module, scale: float) -> None:
    """Sets the factor of the noise with which gates are drawn in training (1 at the start)."""
    for pattern in _bound_patterns(model):
        pattern.noise_scale = scale


def lower_gates(model: nn.Module, by: float) -> None:
    """Lowers the logits of all gates that have a common level (see ``Pattern.lower``)."""
    for pattern in _bound_patterns(model):
        pattern.lower(by)


def synchronise_patterns(model: nn.Module) -> None:
    """Makes what patterns recorded of the texts in training the same in every process."""
    for pattern in _bound_patterns(model):
        pattern.synchronise()


def _bound_patterns(model: nn.Module) -> list[Pattern]:
    return [module for module in model.modules() if isinstance(module, Pattern)]


def _hand_over_hidden_states(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    module.sparse.hand_over(next(tensors))  # type: ignore[union-attr, operator]


def _check_it_was_sparse(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """The hidden states must have been used: else the model attends by another implementation."""
    sparse = module.sparse
    assert isinstance(sparse, SparseSelfAttention)
    if sparse.hand_over(None) is not None:
        raise ValueError(
            f"{type(module).__name__} did not attend under its pattern: the attention "
            "implementation was changed after sparsify. model.set_attn_implementation("
            f"{IMPLEMENTATION!r}) makes it sparse again; how it is computed is chosen by "
            "sparsify(..., executor=...)"
        )


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **further: Any,
) -> tuple[Tensor, Tensor | None]:
    """The attention function that transformers calls in place of its own."""
    sparse = getattr(module, "sparse", None)
    if sparse is None:
        raise ValueError(
            f"{type(module).__name__} has no pattern: it came after the call of sparsify, or its "
            "model shares the config object of a sparsified one (give each a copy of its own)"
        )
    key, value = repeat_heads(query, key, value)
    keep_BN = real_tokens(attention_mask, key)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if sparse.pattern.wants and KEYWORD not in further:
        raise ValueError(
            f"{sparse.pattern} got nothing of the text in {type(module).__name__}: this encoder "
            "does not hand keyword arguments down to its layers, or a layer was called by itself"
        )
    text = further.get(KEYWORD, TextInput())
    output_BHND, probabilities = sparse(
        query, key, value, keep_BN, text, scaling=scaling, dropout=dropout
    )
    config = getattr(module, "config", None)
    asked = further.get("output_attentions", getattr(config, "output_attentions", False))
    if asked and probabilities is None:
        raise ValueError(
            f"executor {sparse.executor!r} keeps no attention probabilities; for "
            "output_attentions=True sparsify the model with executor='dense'"
        )
    return output_BHND.transpose(1, 2).contiguous(), probabilities


def _padding_mask(
    *,
    mask_function: Any,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **_: Any,
) -> Tensor | None:
    """The mask that transformers prepares for ``_attend``: the padding alone, (batch, tokens).

    The window of a layer (``local_size``) was found by the probe and is in its ``sparse``.
    """
    served = mask_function is bidirectional_mask_function or local_size is not None
    if not served or use_vmap:  # vmap is for masks that a caller overlays
        raise ValueError(
            "a sparse model is a bidirectional encoder: causal masks and masks of the caller's "
            "own are not served"
        )
    return attention_mask


AttentionInterface.register(IMPLEMENTATION, _attend)
AttentionMaskInterface.register(IMPLEMENTATION, _padding_mask)
