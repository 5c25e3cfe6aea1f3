"""Hands the layers of an encoder what a pattern reads of the text besides hidden states."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from aaa.patterns.base import Pattern, TextInput
from aaa.probe import hands_down

# The keyword under which transformers' encoders pass a TextInput down to the attention function.
# It belongs to one forward pass, so neither a copied model nor gradient checkpointing, which runs
# layers again in backward, can see that of another.
KEYWORD = "adaptive_axis_text"
HEADS = "syntax_heads"


def check_text_input(model: PreTrainedModel, pattern: Pattern) -> None:
    """Raises a ValueError if the model cannot give a pattern what it wants."""
    name = type(model).__name__
    if "embeddings" in pattern.wants:
        table = model.get_input_embeddings()
        if not isinstance(table, nn.Embedding):
            raise ValueError(
                f"{pattern} reads the input embeddings of a text's tokens, but those of {name} "
                f"are made by {type(table).__name__}, not looked up token by token"
            )
    for module in _entries(model) if pattern.wants else ():
        parameters = inspect.signature(module.forward).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            raise ValueError(
                f"{type(module).__name__} takes no further keyword arguments, by which {pattern} "
                "would get what it reads of the text"
            )
    if pattern.wants and not hands_down(model, KEYWORD):
        raise ValueError(
            f"{name} hands no keyword arguments down to its self-attentions, by which {pattern} "
            "would get what it reads of the text"
        )


def hand_down_text_input(model: PreTrainedModel, pattern: Pattern) -> None:
    """From now on every forward pass makes a ``TextInput`` with what the pattern wants."""
    if pattern.wants:
        for module in _entries(model):
            hook = partial(_make_text_input, pattern.wants)
            module.register_forward_pre_hook(hook, with_kwargs=True)


def _entries(model: PreTrainedModel) -> list[nn.Module]:
    """Where a forward pass can begin: with the head or without."""
    return [model] if model.base_model is model else [model, model.base_model]


def _make_text_input(
    wants: frozenset[str], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if KEYWORD in kwargs:  # made by the model with the head, which calls the one without
        return None
    heads_BN = kwargs.get(HEADS)
    if heads_BN is not None:
        heads_BN = heads_BN.reshape(-1, heads_BN.shape[-1])
    embeddings_BND = _embeddings(module, args, kwargs) if "embeddings" in wants else None
    kept = {name: value for name, value in kwargs.items() if name != HEADS}
    text = TextInput(embeddings_BND, heads_BN)
    if "draws" in wants:
        for pattern in module.modules():
            if isinstance(pattern, Pattern):
                pattern.begin_pass(text)
    return args, {**kept, KEYWORD: text}


def _embeddings(
    model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """One row a text, also where a sample has several, its choices: so the layers will have it."""
    ids_BN, words_BND = kwargs.get("input_ids", args[0] if args else None), None
    if ids_BN is not None:
        words_BND = model.get_input_embeddings()(ids_BN)
    elif kwargs.get("inputs_embeds") is not None:
        words_BND = kwargs["inputs_embeds"]
    if words_BND is None:
        return None
    # Not under no_grad: a hook of transformers' gradient checkpointing makes them require it anew.
    return words_BND.detach().reshape(-1, *words_BND.shape[-2:])
