"""How long a text an encoder has positions for, and how it is given more of them."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def longest_text(model: PreTrainedModel) -> int:
    """The most tokens that the encoder has positions for.

    Raises:
        ValueError: if its config does not say.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if not positions:
        raise ValueError(
            f"the config of this {type(model).__name__} names no longest text: it has no "
            "max_position_embeddings"
        )
    return positions - _first_position(_table(model))


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """In tokens: what the encoder has positions for, and its tokenizer was made for.

    Raises:
        ValueError: if a sample of the model is no text, or its config names no longest one.
    """
    check_reads_texts(model)
    return min(longest_text(model), tokenizer.model_max_length)


def check_reads_texts(model: PreTrainedModel) -> None:
    """Raises a ValueError for a model that is not called with one text a sample."""
    name = type(model).__name__
    if model.main_input_name != "input_ids":
        raise ValueError(
            f"{name} reads {model.main_input_name}, but only encoders of texts can be exported, "
            "measured and drawn on a text"
        )
    if name.endswith("ForMultipleChoice"):
        raise ValueError(
            f"{name} reads several texts a sample, its choices, where one is needed: save it "
            f"without that head, load_sparse(folder, {type(model.base_model).__name__})"
        )


def extend_positions(model: PreTrainedModel, longest: int) -> None:
    """Gives an encoder of learned positions more of them, by repeating those that it has.

    Position p gets the embedding of position p mod n of the n learned ones, so that neighbours
    know each other's distance from the start, everywhere but where a repetition begins
    (Longformer: Beltagy et al., 2020, section 5). Training does the rest.

    Args:
        model: is changed: its table of positions, what is read beside it, and its config.
        longest: tokens of the longest text from now on.

    Raises:
        ValueError: if the encoder has no such table (rotary or relative positions want none), or
            more positions than that.
    """
    table = _table(model)
    if table is None:
        raise ValueError(
            f"{type(model.base_model).__name__} has no table of learned positions that could be "
            "repeated: leave model.max_position_embeddings at null"
        )
    now = longest_text(model)
    if longest < now:
        raise ValueError(
            f"model.max_position_embeddings is {longest}, but the encoder has {now} already: "
            "data.max_length cuts texts"
        )
    first = _first_position(table)
    learned_ND = table.weight.data[first:]
    repeated_ND = learned_ND.repeat(math.ceil(longest / now), 1)[:longest]
    table.weight = nn.Parameter(torch.cat([table.weight.data[:first], repeated_ND]))
    table.num_embeddings = first + longest
    model.config.max_position_embeddings = first + longest
    embeddings = model.base_model.embeddings
    embeddings.position_ids = torch.arange(first + longest, device=table.weight.device)[None]
    if hasattr(embeddings, "token_type_ids"):  # what is read where none are given
        embeddings.token_type_ids = torch.zeros_like(embeddings.position_ids)


def _table(model: PreTrainedModel) -> nn.Embedding | None:
    """The table of learned positions, where BERT's kin keep it."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    return table if isinstance(table, nn.Embedding) else None


def _first_position(table: nn.Embedding | None) -> int:
    """RoBERTa's kin count positions from behind the padding's id on."""
    padding = None if table is None else table.padding_idx
    return 0 if padding is None else padding + 1
