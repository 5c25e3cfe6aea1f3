"""What is timed: one attention by each executor, and a layer of each sparse encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from aaa.attention import EXECUTORS
from aaa.masks import SparseMask
from aaa.patterns import Global, LayerInput, Local, Random

HEADS, SIZE, REACH = 12, 64, 2
FULL, FLASH = "sdpa, no mask", "FlashAttention"
LAYERS = ("BERT, sdpa", "Longformer", "ours, as Longformer", "BigBird", "ours, as BigBird")
WINDOW, GLOBALS, BLOCK = 512, 2, 64  # Longformer's window in all; BigBird's blocks


@dataclass(frozen=True)
class Case:
    """Contestants at one length.

    Args:
        section, series: where it stands in the report; of ``patterns``, one of ``PATTERNS``.
        tokens: the length N.
        mode: ``forward``, ``frozen`` (with backward), ``learned`` (gates as well); of layers
            ``self-attention``, ``layer``, ``training step``.
        names: who is timed; ratios are against the first.
        count: how many rows, and as many columns, are open.
        only_memory: whose memory is measured besides.
    """

    section: str
    series: str
    tokens: int
    mode: str
    names: tuple[str, ...]
    count: int = 0
    only_memory: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def call(self, name: str, device: torch.device, dtype: torch.dtype) -> Callable[[], Any]:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                if self.section == "layers":
                    return _layer_call(name, self.tokens, self.mode)
                return _attention_call(name, self.mode, self.mask())
        finally:
            torch.set_default_dtype(before)

    def mask(self) -> SparseMask:
        """What the contestants but ``FULL`` attend under, the same whenever it is asked for."""
        torch.manual_seed(0)
        if self.section == "patterns":
            keep = torch.ones(1, self.tokens, dtype=torch.bool)
            return PATTERNS[self.series](LayerInput(keep))
        return make_mask(self.tokens, self.count, self.mode == "learned")


def axis_tokens(num_tokens: int, rho: float) -> int:
    """How many rows, and as many columns, leave this share closed, with ``Local(REACH)``."""
    diagonals = (2 * REACH + 1) * num_tokens - REACH * (REACH + 1)
    return max(1, round(((1 - rho) * num_tokens**2 - diagonals) / (2 * num_tokens)))


def make_mask(num_tokens: int, count: int, learned: bool) -> SparseMask:
    """``count`` random rows and as many columns, and the diagonals up to ``REACH``."""
    order = torch.randperm(num_tokens)
    rows, columns = torch.zeros(2, 1, 1, num_tokens)
    rows[..., order[:count]] = 1
    columns[..., order[-count:]] = 1
    gates = (rows.requires_grad_(learned), columns.requires_grad_(learned))
    keep = torch.ones(1, num_tokens, dtype=torch.bool)
    return SparseMask(keep, *gates, torch.ones(1, 1, REACH + 1))


def _scattered(inputs: LayerInput) -> SparseMask:
    """Twenty distances at random and the main diagonal, as diagonals are learned."""
    num_tokens = inputs.keep_BN.shape[1]
    diagonals = torch.zeros(1, 1, num_tokens)
    diagonals[..., torch.randperm(num_tokens)[:20]] = 1
    diagonals[..., 0] = 1
    return SparseMask(inputs.keep_BN, diagonals_BHK=diagonals)


def _degrees(inputs: LayerInput) -> SparseMask:
    """Another reach for each head, as degrees are learned."""
    reach_H1 = torch.randint(2, 60, (1, HEADS, 1))
    return SparseMask(inputs.keep_BN, diagonals_BHK=(torch.arange(60) <= reach_H1).float())


PATTERNS: dict[str, Callable[[LayerInput], SparseMask]] = {
    "Local(2)": Local(2),
    "Local(2) | Global(2)": Local(2) | Global(2),
    "Local(256) | Global(2), Longformer's": Local(256) | Global(2),
    "Local(2) | Global(1) | Random(1)": Local(2) | Global(1) | Random(1),
    "Local(1) | Global(1) | Random(2)": Local(1) | Global(1) | Random(2),
    "axes at rho 0.97 | Local(2)": lambda inputs: make_mask(
        inputs.keep_BN.shape[1], axis_tokens(inputs.keep_BN.shape[1], 0.97), False
    ),
    "20 scattered diagonals": _scattered,
    "degrees of 2 to 59, each head": _degrees,
}


def _attention_call(name: str, mode: str, mask: SparseMask) -> Callable[[], Any]:
    grad = mode != "forward"
    num_tokens = mask.keep_BN.shape[1]
    query, key, value = (
        torch.randn(1, num_tokens, HEADS, SIZE).transpose(1, 2).requires_grad_(grad)
        for _ in range(3)
    )
    gradient = torch.randn(1, num_tokens, HEADS, SIZE).transpose(1, 2)

    def run() -> None:
        if name == FULL:
            output: Tensor = F.scaled_dot_product_attention(query, key, value)
        elif name == FLASH:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                output = F.scaled_dot_product_attention(query, key, value)
        else:
            output, _ = EXECUTORS[name](query, key, value, mask, scaling=SIZE**-0.5)
        if grad:
            output.backward(gradient)

    return run


def _layer_call(name: str, num_tokens: int, level: str) -> Callable[[], Any]:
    """``self-attention`` or ``layer`` forward, or a ``training step`` of a layer with AdamW."""
    model = _layer_model(name).train(level == "training step")
    hidden = torch.randn(1, num_tokens, HEADS * SIZE)
    marks = torch.zeros(1, num_tokens, dtype=torch.long)
    marks[:, :GLOBALS] = 1
    keep = torch.ones(1, num_tokens, dtype=torch.long)
    arguments: dict[str, Any] = {"inputs_embeds": hidden, "attention_mask": keep}
    if name == "Longformer":
        arguments["global_attention_mask"] = marks
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    if level == "self-attention":
        return _self_attention_call(model, arguments)

    def run() -> None:
        with torch.set_grad_enabled(level == "training step"):
            output = model(**arguments).last_hidden_state
        if level == "training step":
            output.square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()

    return run


def _self_attention_call(model: nn.Module, arguments: Any) -> Callable[[], Any]:
    """The self-attention alone, projections included, with what the model hands to it."""
    module = next(m for m in model.modules() if type(m).__name__.endswith("SelfAttention") or
                  type(m).__name__ == "BigBirdBlockSparseAttention")  # fmt: skip
    seen: list[Any] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    with torch.no_grad():
        model(**arguments)
    handle.remove()
    args, kwargs = seen[0]

    def run() -> None:
        with torch.no_grad():
            module(*args, **kwargs)

    return run


def _layer_model(name: str) -> nn.Module:
    """An encoder of one layer of BERT's base size, random weights, without embeddings of words."""
    from transformers import (
        BertConfig,
        BertModel,
        BigBirdConfig,
        BigBirdModel,
        LongformerConfig,
        LongformerModel,
    )  # fmt: skip

    from aaa import sparsify

    shape: dict[str, Any] = {
        "num_hidden_layers": 1, "vocab_size": 8, "max_position_embeddings": 2**15,
        "hidden_size": HEADS * SIZE, "num_attention_heads": HEADS,
        "intermediate_size": 4 * HEADS * SIZE,
    }  # fmt: skip
    if name == "Longformer":
        return LongformerModel(
            LongformerConfig(attention_window=[WINDOW], **shape), add_pooling_layer=False
        )
    if name == "BigBird":
        config = BigBirdConfig(
            attention_type="block_sparse", block_size=BLOCK, num_random_blocks=3, **shape
        )
        return BigBirdModel(config, add_pooling_layer=False)
    bert = BertModel(BertConfig(**shape), add_pooling_layer=False)
    if name == "BERT, sdpa":
        return bert
    if name == "ours, as Longformer":
        return sparsify(bert, Local(WINDOW // 2) | Global(GLOBALS))
    # BigBird's blocks: the own one, the one before and the one after; the first and the last are
    # global, and three random ones a row, for which ours has as many global tokens more.
    assert name == "ours, as BigBird"
    return sparsify(bert, Local(3 * BLOCK // 2) | Global(2 * BLOCK))
