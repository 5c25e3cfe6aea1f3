"""LRA's byte encoder as a run sees it: its tokenizer, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from aaa.models.lra import LraEncoder

TEXTS = ["A film.", "Déjà vu ✓\n\t<br />", "\x00\x7f é", "[CLS] and [PAD] are words", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_bytes(text: str, tmp_path: Path) -> None:
    """Byte + 1 behind a classification token; also after it was saved and loaded."""
    tokenizer = LraEncoder().tokenizer()
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        ids = one(text)["input_ids"]
        assert ids == [257] + [byte + 1 for byte in text.encode()]
        assert one.decode(ids[1:]) == text
        assert one.model_max_length == 1001


def test_every_byte_has_its_token() -> None:
    tokenizer = LraEncoder().tokenizer()
    assert len(tokenizer) == 258
    # Characters whose UTF-8 holds all bytes that UTF-8 can hold.
    text = "".join(map(chr, (*range(0x80), *range(0x80, 0x800, 7), 0x20AC, 0xFFFD, 0x1F600)))
    assert tokenizer(text)["input_ids"][1:] == [byte + 1 for byte in text.encode()]


def test_long_texts_are_cut_and_short_ones_padded() -> None:
    tokenizer = LraEncoder(max_length=5).tokenizer()
    encoded = tokenizer(["abcdefgh", "ab"], truncation=True, padding=True)
    assert encoded["input_ids"] == [[257, 98, 99, 100, 101], [257, 98, 99, 0, 0]]
    assert encoded["attention_mask"] == [[1] * 5, [1, 1, 1, 0, 0]]


def test_the_seed_decides_the_weights() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = LraEncoder(hidden_size=8, layers=1, intermediate_size=8).classifier(2)
        weights.append(model.encoder.embeddings.weight)
    first, same, other = weights
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_fingerprint_holds_every_size() -> None:
    encoders = [LraEncoder(), LraEncoder(layers=2), LraEncoder(dropout=0.0), LraEncoder(heads=2)]
    assert len({encoder.fingerprint() for encoder in encoders}) == len(encoders)
    assert LraEncoder(layers=2).num_layers == 2


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 0}, "model.layers must be 1 or more, not 0"),
        ({"hidden_size": 30}, r"a multiple of heads \(4\), not 30"),
        ({"hidden_size": 9, "heads": 3}, "must be even"),
        ({"dropout": 1.0}, r"model.dropout must be in \[0, 1\)"),
    ],
)
def test_senseless_sizes_are_named(sizes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LraEncoder(**sizes)  # type: ignore[arg-type]
