"""The masks that a fine-tuned encoder has for one text, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from aaa.experiments.arguments import model_folder, saved_tokenizer
from aaa.models.positions import longest_input
from aaa.plots.maps import Map, map_of
from aaa.saved import load_sparse
from aaa.sparse import latest_masks, sparse_layers


def sentence_maps(folder: Path, text: str, pair: str | None, head: int) -> list[Map]:
    """One map a layer for a text, or a pair, under the model that a run has exported.

    Args:
        folder: a run's directory, or a folder with a saved sparse model and its tokenizer.
        text: the text.
        pair: the second text of a pair.
        head: where a layer's heads differ, the one to be drawn, from 0.

    Raises:
        ValueError: if there is no model or tokenizer, or the pattern reads more than a text.
    """
    place = model_folder(folder)
    model = load_sparse(place)
    if any("heads" in layer.pattern.wants for layer in sparse_layers(model)):
        raise ValueError(
            "this run's pattern reads parses: plot the pattern itself, pattern=syntax"
        )
    return maps_of_text(model, saved_tokenizer(place), text, pair, head)


@torch.no_grad()
def maps_of_text(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    pair: str | None = None,
    head: int = 0,
) -> list[Map]:
    """One map a layer; see ``sentence_maps``. Texts are cut at the model's longest."""
    longest = longest_input(model, tokenizer)
    batch = tokenizer(text, pair, truncation=True, max_length=longest, return_tensors="pt")
    model(**batch)
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    maps = []
    for layer, mask in enumerate(latest_masks(model)):
        found = map_of(mask, f"layer {layer} · ρ {float(mask.sparsity()):.2f}", tokens, head=head)
        parts = [found.title]
        if mask.dense().shape[1] > 1:
            parts.append(f"head {head}")
        if mask.rows_BHN is not None:
            parts.append(_count(len(found.rows), "row"))
        if mask.columns_BHN is not None:
            parts.append(_count(len(found.columns), "column"))
        maps.append(replace(found, title=" · ".join(parts)))
    return maps


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
