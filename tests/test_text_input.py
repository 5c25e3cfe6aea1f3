"""What patterns read of the text reaches every layer of every family, once a forward pass."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from aaa import latest_masks, sparsify
from aaa.patterns import Full, LayerInput, Lexical, Local, Pattern, Syntax
from aaa.patterns.base import TextInput
from aaa.patterns.layers import InLayers

Batch = dict[str, Tensor]
EncoderFactory = Callable[..., Any]
PATTERNS = [Syntax(hops=1), Syntax(density=0.4), Lexical(2), Lexical(density=0.4)]


@pytest.fixture
def parsed(batch: Batch) -> Batch:
    """The batch with a chain for each text: every token is headed by the one before it."""
    heads_BN = (torch.arange(12) - 1).clamp_min(0).expand(4, -1)
    return {**batch, "syntax_heads": heads_BN.masked_fill(batch["attention_mask"] == 0, -1)}


def expected(pattern: Pattern, model: Any, batch: Batch) -> Tensor:
    words = model.get_input_embeddings().weight.detach()[batch["input_ids"]]
    text = TextInput(words, batch["syntax_heads"])
    return pattern(LayerInput(batch["attention_mask"].bool(), text=text)).dense()


def count_reads(monkeypatch: pytest.MonkeyPatch, pattern: Pattern) -> list[int]:
    reads: list[int] = []
    original = type(pattern)._edges  # type: ignore[attr-defined]

    def counted(self: Any, inputs: LayerInput) -> Tensor:
        reads.append(1)
        return original(self, inputs)

    monkeypatch.setattr(type(pattern), "_edges", counted)
    return reads


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_every_layer_of_every_family(
    family: str,
    pattern: Pattern,
    make_encoder: EncoderFactory,
    parsed: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = sparsify(make_encoder(family), pattern)
    reads = count_reads(monkeypatch, pattern)
    for entry in (model, model.base_model):
        reads.clear()
        entry(**parsed)
        assert len(reads) == 1
        masks = latest_masks(model)
        assert len(masks) == 2
        place_N = torch.arange(12)
        for mask in masks:
            own_window = 12 if mask.window is None else mask.window  # ModernBERT's
            within_NN = (place_N[:, None] - place_N).abs() <= own_window
            assert torch.equal(mask.dense(), expected(pattern, model, parsed) * within_NN)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_text_alone_and_in_a_batch(
    pattern: Pattern, make_encoder: EncoderFactory, parsed: Batch
) -> None:
    model = sparsify(make_encoder(), pattern)
    together = model(**parsed).logits
    for row, length in enumerate(parsed["attention_mask"].sum(-1).tolist()):
        alone = {name: value[row : row + 1, :length] for name, value in parsed.items()}
        torch.testing.assert_close(model(**alone).logits[0], together[row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pattern", [Syntax(hops=20), Lexical(20)], ids=str)
def test_everything_in_reach_is_the_dense_model(
    pattern: Pattern, make_encoder: EncoderFactory, parsed: Batch
) -> None:
    plain = {name: value for name, value in parsed.items() if name != "syntax_heads"}
    dense = make_encoder()(**plain).logits
    sparse = sparsify(make_encoder(), pattern)(**parsed).logits
    torch.testing.assert_close(sparse, dense, atol=1e-5, rtol=1e-4)


def test_without_heads_it_says_so(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(), Local(1) | Syntax(hops=1))
    with pytest.raises(ValueError, match="call the model with syntax_heads="):
        model(**batch)


def test_word_embeddings_in_place_of_ids(make_encoder: EncoderFactory, parsed: Batch) -> None:
    model = sparsify(make_encoder(), Lexical(2))
    words = model.get_input_embeddings()(parsed["input_ids"])
    by_ids = model(**parsed).logits
    by_words = model(inputs_embeds=words, attention_mask=parsed["attention_mask"]).logits
    torch.testing.assert_close(by_words, by_ids)


@pytest.mark.parametrize("given", ["input_ids", "inputs_embeds"])
@pytest.mark.parametrize("pattern", [Syntax(hops=1), *PATTERNS[2:]], ids=str)
def test_several_choices_a_sample(
    pattern: Pattern, given: str, make_encoder: EncoderFactory, parsed: Batch
) -> None:
    """Models for multiple choice take (samples, choices, tokens) and flatten them themselves."""
    model = sparsify(make_encoder(head="ForMultipleChoice"), pattern)
    named = dict(parsed)
    if given == "inputs_embeds":
        named[given] = model.get_input_embeddings()(named.pop("input_ids"))
    model(**{name: value.unflatten(0, (2, 2)) for name, value in named.items()})
    for mask in latest_masks(model):
        assert torch.equal(mask.dense(), expected(pattern, model, parsed))


def test_ids_by_position(make_encoder: EncoderFactory, parsed: Batch) -> None:
    model = sparsify(make_encoder(), Lexical(2))
    by_place = model(parsed["input_ids"], parsed["attention_mask"]).logits
    assert torch.equal(by_place, model(**parsed).logits)


@pytest.mark.parametrize("pattern", [Syntax(hops=1), Lexical(2)], ids=str)
def test_gradient_checkpointing_sees_its_own_pass(
    pattern: Pattern, make_encoder: EncoderFactory, parsed: Batch
) -> None:
    """Two passes before one backward: the first must not be recomputed with the second's text."""
    other = {name: value[[1, 0, 3, 2]] for name, value in parsed.items()}
    other["syntax_heads"] = torch.zeros_like(other["syntax_heads"])

    def gradients(checkpointing: bool) -> list[Tensor]:
        changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = sparsify(make_encoder(**changes), pattern).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        loss = model(**parsed).logits.square().sum() + model(**other).logits.square().sum()
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for plain, recomputed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_a_copy_reads_its_own_words(
    duplicate: Callable[[Any], Any], make_encoder: EncoderFactory, parsed: Batch
) -> None:
    model = sparsify(make_encoder(), Lexical(2))
    model(**parsed)
    copied = duplicate(model)
    nn.init.normal_(copied.get_input_embeddings().weight)
    copied(**parsed)
    (mask, *_), (original, *_) = latest_masks(copied), latest_masks(model)
    assert torch.equal(mask.dense(), expected(Lexical(2), copied, parsed))
    assert torch.equal(original.dense(), expected(Lexical(2), model, parsed))


def test_words_get_no_gradient_through_the_mask(
    make_encoder: EncoderFactory, parsed: Batch
) -> None:
    model = sparsify(make_encoder(), Lexical(2)).train()
    model(**parsed).logits.sum().backward()
    mask, *_ = latest_masks(model)
    assert not mask.needs_gradient


def test_in_some_layers(make_encoder: EncoderFactory, parsed: Batch) -> None:
    model = sparsify(make_encoder(), InLayers(Syntax(hops=1), "1", Full()))
    model(**parsed)
    first, second = latest_masks(model)
    assert first.sparsity().abs().max() == 0
    assert torch.equal(second.dense(), expected(Syntax(hops=1), model, parsed))


def test_pixels_have_no_words() -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    with pytest.raises(ValueError, match="ViTForImageClassification are made by"):
        sparsify(model, Lexical(2))
    sparsify(model, Local(1))  # it was left as it was


def test_keywords_that_get_lost_are_noticed(make_encoder: EncoderFactory, parsed: Batch) -> None:
    model = sparsify(make_encoder(), Lexical(2))
    states = torch.randn(4, 12, 16)
    with pytest.raises(ValueError, match="got nothing of the text"):
        model.bert.encoder.layer[0](states, parsed["attention_mask"])
