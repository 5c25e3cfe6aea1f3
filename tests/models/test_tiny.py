"""The demo's tiny encoder: its tokenizer, its start, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aaa.data.demo import vocabulary
from aaa.models.tiny import TinyEncoder


def test_pairs_are_marked_as_bert_marks_them() -> None:
    tokenizer = TinyEncoder().tokenizer()
    encoded = tokenizer("The film is good .", "Anna owns dogs .")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == "[CLS] the film is good . [SEP] anna owns dogs . [SEP]".split()  # noqa: SIM905
    assert encoded["token_type_ids"] == [0] * 7 + [1] * 5
    assert encoded["attention_mask"] == [1] * 12


def test_every_demo_word_is_one_token_and_others_are_unknown() -> None:
    encoder = TinyEncoder()
    tokenizer = encoder.tokenizer()
    token_ids = tokenizer(list(vocabulary()), add_special_tokens=False)["input_ids"]
    assert [len(ids) for ids in token_ids] == [1] * len(vocabulary())
    assert tokenizer.unk_token_id not in {ids[0] for ids in token_ids}
    assert tokenizer("zebra", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]
    assert encoder.classifier(2).config.vocab_size == len(tokenizer)


def test_tokenizer_pads_and_truncates() -> None:
    tokenizer = TinyEncoder(max_position_embeddings=16).tokenizer()
    texts = ["the film is good .", "the " * 30]
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    assert encoded["input_ids"].shape == (2, 16)
    assert encoded["input_ids"][0, -1] == tokenizer.pad_token_id == 0


def test_weights_are_drawn_from_the_current_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in TinyEncoder().classifier(2).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_at_the_start_a_head_finds_the_same_word_in_the_other_text() -> None:
    torch.manual_seed(0)
    encoder = TinyEncoder()
    tokenizer = encoder.tokenizer()
    model = encoder.classifier(2).eval()
    model.set_attn_implementation("eager")
    first = "anna owns dogs , ben visited rome ."
    encoded = tokenizer(first, "ben plays harp .", return_tensors="pt")
    with torch.no_grad():
        attention_HNN = model(**encoded, output_attentions=True).attentions[0][0]
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    here = len(tokens) - 5  # "ben" of the second text
    assert tokens[here] == "ben"
    assert attention_HNN[1, here].argmax() == tokens.index("ben")
    assert (attention_HNN[0, here].argmax() - here).abs() <= 1


@pytest.mark.parametrize("num_labels", [1, 3])
def test_classifier_gives_that_many_outputs_and_trains_everywhere(num_labels: int) -> None:
    encoder = TinyEncoder(hidden_size=32, layers=2, heads=4)
    encoded = encoder.tokenizer()("anna owns dogs .", "ben owns cats .", return_tensors="pt")
    model = encoder.classifier(num_labels)
    logits = model(**encoded).logits
    assert logits.shape == (1, num_labels)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert encoder.num_layers == model.config.num_hidden_layers == 2


def test_fingerprint_tells_encoders_apart() -> None:
    encoders = [
        TinyEncoder(),
        TinyEncoder(hidden_size=96),
        TinyEncoder(layers=2),
        TinyEncoder(heads=4),
    ]
    assert len({encoder.fingerprint() for encoder in encoders}) == len(encoders)
    assert TinyEncoder().fingerprint() == encoders[0].fingerprint()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 0}, "model.layers must be 1 or more, not 0"),
        ({"max_position_embeddings": 0}, "model.max_position_embeddings must be 1 or more"),
        ({"heads": 1}, "model.heads must be from 2 to 4, not 1"),
        ({"hidden_size": 36}, "model.hidden_size must be a multiple of 8 and of heads"),
        (
            {"hidden_size": 64, "heads": 3},
            "model.hidden_size must be a multiple of 8 and of heads",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_errors(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TinyEncoder(**sizes)


def test_number_of_labels_must_be_positive() -> None:
    with pytest.raises(ValueError, match="num_labels must be 1 or more, not 0"):
        TinyEncoder().classifier(0)
