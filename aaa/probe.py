"""Finds the self-attentions of any Hugging Face encoder by running it once on a tiny input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

PROBE = "adaptive_axis_probe"


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

    def see_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if tensors:
            self.width[id(module)] = tensors[0].shape[-1]

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        known = self.found.get(id(module))
        if known is not None:
            known.calls += 1
        else:
            width = self.width[id(module)]
            self.found[id(module)] = FoundSelfAttention(module, width, query.shape[1])
        return value.transpose(1, 2).contiguous(), None


_recorder: _Recorder | None = None


def find_self_attentions(model: nn.Module) -> list[FoundSelfAttention]:
    """The self-attentions of an encoder in the order in which they run.

    Raises:
        ValueError: if the model is no Hugging Face model, is a decoder, cannot be run on its dummy
            input, or does not attend through transformers' attention interface.
    """
    global _recorder
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"sparsify serves Hugging Face encoders (PreTrainedModel), not {name}")
    if getattr(model.config, "is_decoder", False) or getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(f"sparsify serves encoders; {name} is configured as a decoder")
    before, training = model.config._attn_implementation, model.training
    recorder = _recorder = _Recorder()
    hooks = [
        module.register_forward_pre_hook(recorder.see_input, with_kwargs=True)
        for module in model.modules()
    ]
    try:
        model.eval()
        model.set_attn_implementation(PROBE)
        with torch.no_grad():
            model(**_tiny_input(model))
    except Exception as error:
        raise ValueError(f"{name} could not be run on a tiny input to find its self-attentions: {error}") from error
    finally:
        _recorder = None
        for hook in hooks:
            hook.remove()
        model.train(training)
        model.set_attn_implementation(before)
    if not recorder.found:
        raise ValueError(
            f"{name} does not attend through transformers' attention interface, so no pattern can be "
            "put into it; families that do include BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT and MobileBERT"
        )
    return list(recorder.found.values())


def _tiny_input(model: PreTrainedModel) -> dict[str, Tensor]:
    device = model.device
    if model.main_input_name == "pixel_values":
        size, channels = model.config.image_size, model.config.num_channels
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(1, channels, height, width, device=device)}
    ids = torch.full((1, 4), min(5, model.config.vocab_size - 1), device=device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    assert _recorder is not None
    return _recorder.attend(module, query, key, value, *args, **kwargs)


def _no_mask(**_: Any) -> None:
    return None


AttentionInterface.register(PROBE, _attend)
AttentionMaskInterface.register(PROBE, _no_mask)
