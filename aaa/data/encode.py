"""Texts to token numbers, once: the result is cached under a name made of all that shapes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tokenizers
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from aaa.data.cached import Batch, cached_map
from aaa.data.parses import words_column
from aaa.data.syntax import token_heads
from aaa.data.tokenizer_identity import tokenizer_identity
from aaa.fingerprint import hash_json

# To be raised when the code below comes to write other values or columns for the same input.
FORMAT = 1


def encode(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[str],
    max_length: int,
    fingerprint: str,
    cache_dir: Path | None = None,
) -> Dataset:
    """Tokenise the texts of a dataset, pairs cut from the longer side, special tokens included.

    Args:
        dataset: Rows with the text ``columns`` and ``label``, and with the words of each text if
            ``add_words`` has parsed them; its ``split`` must be set.
        tokenizer: A fast tokenizer.
        columns: One text column, or two that make a pair.
        max_length: Longest sequence in tokens, special tokens counted; what exceeds it is cut.
        fingerprint: Identifies the content ``dataset`` was read from (``Task.fingerprint()``, and
            that of its parses); its split and number of rows are added here, any other choice of
            rows is not.
        cache_dir: Folder of the cache; a later call with equal arguments, in this process or
            another, reads the file there instead of tokenising. None keeps the result in memory.

    Returns:
        As many rows, with ``input_ids``, ``token_type_ids`` where the tokenizer has them,
        ``label`` (float32 or int64), ``length`` (tokens) and, of parsed texts, ``syntax_heads``
        (as ``token_heads`` makes them). There is no padding, hence no mask.

    Raises:
        ValueError: If the dataset's split is not set, the tokenizer is not a fast one, or
            ``max_length`` is beyond what it (and so its model) can take, or too short to hold a
            token of each text.
    """
    if dataset.split is None:  # else two splits of one size would share a cache file
        raise ValueError("the dataset's split is not set; make it with Dataset...(split=...)")
    _check(tokenizer, columns, max_length)
    typed = "token_type_ids" in tokenizer.model_input_names
    parsed = all(words_column(column) in dataset.column_names for column in columns)

    def tokenise(batch: Batch) -> Batch:
        rows = tokenizer(
            *(batch[column] for column in columns),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        encoded = {
            **{name: rows[name] for name in ("input_ids", "token_type_ids") if name in features},
            "length": [len(ids) for ids in rows["input_ids"]],
        }
        if parsed:
            words = zip(*(batch[words_column(column)] for column in columns), strict=True)
            encoded["syntax_heads"] = [
                token_heads(tokens.offsets, tokens.sequence_ids, own)
                for tokens, own in zip(rows.encodings, words, strict=True)
            ]
        return encoded

    features = Features(
        input_ids=List(Value("int32")),
        **({"token_type_ids": List(Value("int8"))} if typed else {}),
        label=_label_type(dataset),
        length=Value("int32"),
        **({"syntax_heads": List(Value("int32"))} if parsed else {}),
    )
    key = _key(dataset, tokenizer, columns, max_length, fingerprint)
    others = [name for name in dataset.column_names if name != "label"]
    return cached_map(dataset, tokenise, features, key, cache_dir, "tokenising", others)


def _check(tokenizer: PreTrainedTokenizerBase, columns: Sequence[str], max_length: int) -> None:
    """Raise a ValueError if the texts cannot be tokenised so."""
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {name} has no fast version (a tokenizer.json)")
    if max_length > tokenizer.model_max_length:
        raise ValueError(
            f"max_length is {max_length}, but {name} takes at most "
            f"{tokenizer.model_max_length} tokens (model.max_position_embeddings, where there is "
            "such an option, gives it more)"
        )
    needed = tokenizer.num_special_tokens_to_add(pair=len(columns) == 2) + len(columns)
    if max_length < needed:
        raise ValueError(
            f"max_length is {max_length}, but {name} needs {needed} tokens for one of each text "
            "and its special tokens"
        )


def _label_type(dataset: Dataset) -> Value:
    """float32 for scores, int64 for class numbers."""
    return Value("float32" if "float" in dataset.features["label"].dtype else "int64")


def _key(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    columns: Sequence[str],
    max_length: int,
    fingerprint: str,
) -> str:
    """SHA-256 of all that the encoded rows depend on."""
    parts = {
        "format": FORMAT,
        "tokenizers": tokenizers.__version__,
        "backend": tokenizer_identity(tokenizer),
        "inputs": tokenizer.model_input_names,
        "truncation_side": tokenizer.truncation_side,
        **({"split_special_tokens": True} if tokenizer.split_special_tokens else {}),
        "columns": list(columns),
        "max_length": max_length,
        "data": fingerprint,
        "split": str(dataset.split),
        "rows": len(dataset),
    }
    return hash_json(parts)
