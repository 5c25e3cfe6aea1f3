"""Finds the self-attentions of any Hugging Face encoder by running it once on a tiny input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import bidirectional_mask_function

PROBE = "adaptive_axis_probe"


PLAIN_TOLERANCE = 0.02  # relative; sixteen-bit arithmetic stays below, a bias of its own does not


@dataclass
class FoundSelfAttention:
    """A module that calls transformers' attention interface, ``calls`` times in a forward pass."""

    module: nn.Module
    hidden_size: int
    num_heads: int
    calls: int = 1


class _Recorder:
    """Writes down who calls the attention function, and what each module was called with."""

    def __init__(self) -> None:
        self.found: dict[int, FoundSelfAttention] = {}
        self.width: dict[int, int] = {}
        self.restricted = False

    def see_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if tensors:
            self.width[id(module)] = tensors[0].shape[-1]

    def see_mask(self, mask_function: Any) -> None:
        """Causal and windowed attention ask for a mask function of their own."""
        if mask_function not in (None, bidirectional_mask_function):
            self.restricted = True

    def attend(
        self,
        module: nn.Module,
        query_BHND: Tensor,
        key_BHND: Tensor,
        value_BHND: Tensor,
        scaling: float | None = None,
        sliding_window: int | None = None,
    ) -> tuple[Tensor, None]:
        """Attention of every token to every token, which is what a pattern starts from."""
        known = self.found.get(id(module))
        if known is not None:
            known.calls += 1
        else:
            width, num_heads = self.width[id(module)], query_BHND.shape[1]
            self.found[id(module)] = FoundSelfAttention(module, width, num_heads)
        if getattr(module, "is_causal", False) or sliding_window is not None:
            self.restricted = True
        output_BHND = F.scaled_dot_product_attention(
            query_BHND, key_BHND, value_BHND, scale=scaling
        )
        return output_BHND.transpose(1, 2).contiguous(), None


_recorder: _Recorder | None = None


def find_self_attentions(model: nn.Module) -> list[FoundSelfAttention]:
    """The self-attentions of an encoder in the order in which they run; the model stays as it was.

    Raises:
        ValueError: if the model is no Hugging Face model, is a decoder, cannot be run on a tiny
            input, does not attend through transformers' attention interface, has a window of its
            own, or adds to the scores something that a pattern would lose (as T5 does).
    """
    global _recorder
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"sparsify serves Hugging Face encoders (PreTrainedModel), not {name}")
    config = model.config
    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"sparsify serves encoders; {name} is configured as a decoder")
    before = config._attn_implementation
    training = {module: module.training for module in model.modules()}
    encoder = model.base_model  # a head may want more than a text, such as labels or choices
    recorder = _recorder = _Recorder()
    hooks = [
        module.register_forward_pre_hook(recorder.see_input, with_kwargs=True)
        for module in model.modules()
    ]
    try:
        model.eval()
        with torch.no_grad():
            original = encoder(**_tiny_input(model))[0]
            model.set_attn_implementation(PROBE)
            plain = encoder(**_tiny_input(model))[0]
    except Exception as error:
        raise ValueError(
            f"{name} could not be run on a tiny input to find its self-attentions: {error}"
        ) from error
    finally:
        _recorder = None
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
        model.set_attn_implementation(before)
    if not recorder.found:
        raise ValueError(
            f"{name} does not attend through transformers' attention interface, so no pattern can "
            "be put into it; families that do include BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT "
            "and MobileBERT"
        )
    if recorder.restricted:
        raise ValueError(
            f"{name} has causal or windowed attention of its own, which a pattern would undo; "
            "sparsify serves encoders in which every token attends to every token"
        )
    difference = (original - plain).abs().max() / original.abs().max().clamp_min(1e-6)
    if not difference < PLAIN_TOLERANCE:
        raise ValueError(
            f"{name} does more than attend by scaled dot products (such as T5's relative position "
            "bias), which a pattern would lose"
        )
    return list(recorder.found.values())


def _tiny_input(model: PreTrainedModel) -> dict[str, Tensor]:
    device = model.device
    if model.main_input_name == "pixel_values":
        size, channels = model.config.image_size, model.config.num_channels
        height, width = (size, size) if isinstance(size, int) else size
        pixels = torch.linspace(-1, 1, height * width, device=device, dtype=model.dtype)
        return {"pixel_values": pixels.view(1, 1, height, width).repeat(1, channels, 1, 1)}
    ids = torch.arange(5, 11, device=device).clamp_max(model.config.vocab_size - 1).unsqueeze(0)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    assert _recorder is not None
    return _recorder.attend(module, query, key, value, scaling, sliding_window)


def _no_mask(*, mask_function: Any = None, **_: Any) -> None:
    assert _recorder is not None
    _recorder.see_mask(mask_function)


AttentionInterface.register(PROBE, _attend)
AttentionMaskInterface.register(PROBE, _no_mask)
