"""Finds the self-attentions of any Hugging Face encoder by running it on a tiny input."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from aaa.interface import is_padding_alone, repeat_heads, window_of

PROBE = "adaptive_axis_probe"

PLAIN_TOLERANCE = 0.02  # relative; sixteen-bit arithmetic stays below, a bias of its own does not
CHANGED = 1e-3  # relative; what another token did to a token's hidden states
READABLE = ("input_ids", "pixel_values")


@dataclass
class FoundSelfAttention:
    """A module that calls transformers' attention interface, ``calls`` times in a forward pass.

    ``window`` is the reach of its own in tokens on each side, None where every token attends to
    every token.
    """

    module: nn.Module
    hidden_size: int
    num_heads: int
    window: int | None = None
    calls: int = 1


def find_self_attentions(model: nn.Module) -> list[FoundSelfAttention]:
    """The self-attentions of an encoder in the order in which they run; the model stays as it was.

    Raises:
        ValueError: if the model is no Hugging Face model, is a decoder, cannot be run on a tiny
            input, adds to the scores something that a pattern would lose (as T5 does), or lets
            tokens see each other elsewhere than in transformers' attention interface, so that a
            part of it would stay dense.
    """
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"sparsify serves Hugging Face encoders (PreTrainedModel), not {name}")
    config = model.config
    if getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"sparsify serves encoders; {name} is configured as a decoder or an encoder-decoder"
        )
    if model.main_input_name not in READABLE:
        raise ValueError(
            f"{name} reads {model.main_input_name}; sparsify serves encoders of "
            f"{' or '.join(READABLE)}"
        )
    try:
        seen = _run(model)
    except Exception as error:
        raise ValueError(
            f"{name} could not be run on a tiny input to find its self-attentions: {error}"
        ) from error
    reason = _why_not(seen, getattr(config, "num_hidden_layers", None))
    if reason:
        raise ValueError(f"{name} cannot be served: {reason}")
    return list(seen.found.values())


def hands_down(model: PreTrainedModel, keyword: str) -> bool:
    """Whether every self-attention gets a keyword argument that the encoder is called with."""
    with _alone, _recording(model) as recorder:
        model.set_attn_implementation(PROBE)
        _last_hidden_states(model, **{keyword: True})
    return all(keyword in keywords for keywords in recorder.keywords)


class _Recorder:
    """Writes down who calls the attention function, and what each module was called with."""

    def __init__(self) -> None:
        self.found: dict[int, FoundSelfAttention] = {}
        self.input: dict[int, Tensor] = {}
        self.keywords: list[Collection[str]] = []  # of each call
        self.problem = ""
        self.closed = False  # whether each token attends to itself alone
        self.difference = 0.0  # what of the original is lost by plain attention, relative
        self.mixes = False  # whether tokens meet outside the self-attentions that were found

    def see_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if tensors:
            self.input.setdefault(id(module), tensors[0])

    def see_mask(self, mask_function: Callable[..., Tensor]) -> Tensor | None:
        """What a layer is handed as its attention mask: the reach of its window, if it has one."""
        try:
            window = window_of(mask_function)
        except ValueError as error:
            self._refuse(str(error))
            return None
        return None if window is None else torch.tensor(window)

    def attend(
        self,
        module: nn.Module,
        query_BHND: Tensor,
        key_BHND: Tensor,
        value_BHND: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Attention of every token to every token, which is what a pattern starts from."""
        self.keywords.append(kwargs.keys())
        window = None
        biased = any(isinstance(v, Tensor) and v.is_floating_point() for v in kwargs.values())
        if attention_mask is not None and attention_mask.dim() == 0:
            window = int(attention_mask)
        elif attention_mask is not None:
            biased = biased or not is_padding_alone(attention_mask)
        if not self.closed:
            self._record(module, query_BHND.shape[1], window)
        if getattr(module, "is_causal", False) or kwargs.get("is_causal"):
            self._refuse("its attention is causal")
        elif len(query_BHND) != 1 or query_BHND.shape[-2] != key_BHND.shape[-2]:
            self._refuse("it attends from some tokens to others, not among all of one text")
        elif kwargs.get("sliding_window") is not None and window is None:
            self._refuse("it has a window that its attention mask does not show")
        elif biased:
            self._refuse("it adds a bias of its own to the scores")
        elif kwargs.get("softcap") is not None:
            self._refuse("it caps the scores")
        key_BHND, value_BHND = repeat_heads(query_BHND, key_BHND, value_BHND)
        if self.closed:
            return value_BHND.transpose(1, 2).contiguous(), None
        window_NN = None if window is None else _band(query_BHND, window)
        output_BHND = F.scaled_dot_product_attention(
            query_BHND, key_BHND, value_BHND, window_NN, scale=scaling
        )
        return output_BHND.transpose(1, 2).contiguous(), None

    def _record(self, module: nn.Module, num_heads: int, window: int | None) -> None:
        known = self.found.get(id(module))
        if known is None:
            width = self.input[id(module)].shape[-1]
            self.found[id(module)] = FoundSelfAttention(module, width, num_heads, window)
        else:
            known.calls += 1
            if known.window != window:
                self._refuse("layers that share one self-attention have different windows")

    def _refuse(self, problem: str) -> None:
        self.problem = self.problem or problem


_recorder: _Recorder | None = None
_alone = threading.RLock()  # for there is one recorder


def _run(model: PreTrainedModel) -> _Recorder:
    """Three kinds of passes: as the model is, with plain attention, with all attention closed."""
    with _alone, _recording(model) as recorder:
        original = _last_hidden_states(model)
        model.set_attn_implementation(PROBE)
        recorder.input.clear()
        plain = _last_hidden_states(model)
        recorder.difference = _relative_change(original, plain).max().item()
        if recorder.found and not recorder.problem:
            recorder.closed = True
            recorder.mixes = _tokens_meet_elsewhere(model, recorder)
    return recorder


@contextmanager
def _recording(model: PreTrainedModel) -> Iterator[_Recorder]:
    """The model in evaluation mode with every module's input seen; afterwards as it was."""
    global _recorder
    before = model.config._attn_implementation
    training = {module: module.training for module in model.modules()}
    recorder = _recorder = _Recorder()
    hooks = [
        module.register_forward_pre_hook(recorder.see_input, with_kwargs=True)
        for module in model.modules()
    ]
    try:
        model.eval()
        with torch.no_grad():
            yield recorder
    finally:
        _recorder = None
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
        model.set_attn_implementation(before)


def _tokens_meet_elsewhere(model: PreTrainedModel, recorder: _Recorder) -> bool:
    """Whether a token reaches others although every self-attention is closed.

    What it reaches before the first one, as by MobileBERT's trigrams, is no attention.
    """
    first = next(iter(recorder.found))
    states = []
    for changed in (False, True):
        recorder.input.clear()
        last = _last_hidden_states(model, changed)
        states.append((recorder.input[first], last))
    (first_input, output), (other_first_input, other_output) = states
    if first_input.shape[:2] != output.shape[:2]:
        return True
    early = _relative_change(first_input, other_first_input) > CHANGED
    late = _relative_change(output, other_output) > CHANGED
    return bool((late & ~early).any())


def _last_hidden_states(model: PreTrainedModel, changed: bool = False, **further: Any) -> Tensor:
    """Of the encoder alone: a head may want more than a text, such as labels or choices."""
    encoder = model.base_model
    if model.main_input_name not in inspect.signature(encoder.forward).parameters:
        encoder = model  # DINOv3 calls a part of the encoder so
    return encoder(**_tiny_input(model, changed), **further)[0]


def _relative_change(left_BND: Tensor, right_BND: Tensor) -> Tensor:
    """The largest change of each token, of shape (B, N), in units of the largest value."""
    difference_BN = (left_BND - right_BND).abs().amax(-1)
    return difference_BN / left_BND.abs().max().clamp_min(1e-6)


def _why_not(seen: _Recorder, num_layers: int | None) -> str:
    """Why a pattern cannot be put into a model of which this was seen; empty if it can."""
    calls = sum(self_attention.calls for self_attention in seen.found.values())
    if not seen.found:
        return (
            "it does not attend through transformers' attention interface, so no pattern can be "
            "put into it; families that do include BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, "
            "MobileBERT and ModernBERT"
        )
    if seen.problem:
        return f"{seen.problem}, which a pattern would undo or lose"
    if not seen.difference < PLAIN_TOLERANCE:
        return "it does more than attend by scaled dot products, which a pattern would lose"
    if num_layers is not None and calls < num_layers:
        return (
            f"only {calls} of its {num_layers} layers attend through transformers' attention "
            "interface, so the others would stay dense"
        )
    if seen.mixes:
        return (
            "its tokens see each other outside transformers' attention interface too, and would "
            "go on doing so whatever the pattern"
        )
    return ""


def _tiny_input(model: PreTrainedModel, changed: bool = False) -> dict[str, Tensor]:
    """Six tokens, or one image; ``changed`` in one token, or one pixel."""
    config, device = model.config, model.device
    if model.main_input_name == "pixel_values":
        size, channels = config.image_size, config.num_channels
        height, width = (size, size) if isinstance(size, int) else size
        pixels = torch.linspace(-1, 1, height * width, device=device, dtype=model.dtype)
        pixels[-1] += changed
        return {"pixel_values": pixels.view(1, 1, height, width).repeat(1, channels, 1, 1)}
    ids = torch.arange(5, 11, device=device).clamp_max(config.vocab_size - 1).unsqueeze(0)
    ids[0, 3] -= int(changed)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _band(query_BHND: Tensor, window: int) -> Tensor:
    positions = torch.arange(query_BHND.shape[-2], device=query_BHND.device)
    return (positions[:, None] - positions).abs() <= window


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    assert _recorder is not None
    return _recorder.attend(module, query, key, value, attention_mask, **kwargs)


def _window_as_mask(*, mask_function: Any, **_: Any) -> Tensor | None:
    assert _recorder is not None
    return _recorder.see_mask(mask_function)


AttentionInterface.register(PROBE, _attend)
AttentionMaskInterface.register(PROBE, _window_as_mask)
