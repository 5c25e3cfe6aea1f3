"""What ``sparsify`` refuses: by name, without a change to the model; and never silently dense."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aaa import Axis, Full, Local, Pattern, sparsify
from aaa.patterns import Diagonal, LayerSite, Lexical
from aaa.sparse import IMPLEMENTATION, sparse_layers
from tests.conftest import EncoderFactory
from tests.encoders import IMAGE, REFUSED, SHAPE, Batch, build, hidden_states


def assert_still_dense(model: Any, before: str, batch: Batch, expected: Tensor) -> None:
    assert model.config._attn_implementation == before
    assert not sparse_layers(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(**batch)[0], expected)


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_cannot_be_served(family: str) -> None:
    shape, reason = REFUSED[family]
    model = build(family, shape)
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=f"{family}Model.*{reason}"):
        sparsify(model, Local(1))
    assert model.config._attn_implementation == before
    assert not sparse_layers(model)


@pytest.mark.parametrize("family", ["DebertaV2", "MPNet", "ConvBert"])
def test_a_refused_model_with_a_head_stays_as_it_was(
    make_encoder: EncoderFactory, family: str, batch: Batch
) -> None:
    model = make_encoder(family)
    before, expected = model.config._attn_implementation, model(**batch)[0]
    with pytest.raises(ValueError, match=f"{family}ForSequenceClassification"):
        sparsify(model, Local(1))
    assert_still_dense(model, before, batch, expected)


@pytest.mark.parametrize(
    "option", ["use_relative_position_bias", "use_shared_relative_position_bias"]
)
def test_a_position_bias_that_is_still_zero(option: str) -> None:
    model = build("Beit", {**IMAGE, option: True})
    with pytest.raises(ValueError, match=r"BeitModel.*adds a bias of its own"):
        sparsify(model, Local(1))


@pytest.mark.parametrize("pattern", [Diagonal("task"), Lexical(2)], ids=str)
def test_an_encoder_that_keeps_keyword_arguments_to_itself(pattern: Pattern) -> None:
    model, ids = build("SiglipText", SHAPE), {"input_ids": torch.arange(5, 11).unsqueeze(0)}
    before, expected = model.config._attn_implementation, model(**ids)[0]
    with pytest.raises(ValueError, match="SiglipTextModel hands no keyword arguments down"):
        sparsify(model, pattern)
    assert_still_dense(model, before, ids, expected)


def test_decoders(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = make_encoder(head="Model", is_decoder=True)
    before, expected = model.config._attn_implementation, model(**batch)[0]
    with pytest.raises(ValueError, match=r"BertModel.*decoder"):
        sparsify(model, Local(1))
    assert_still_dense(model, before, batch, expected)


class Unbindable(Pattern):
    def bind(self, site: LayerSite) -> Pattern:
        if site.layer:
            raise ValueError("only the first layer")
        return self


@pytest.mark.parametrize(
    ("pattern", "executor", "message"),
    [
        (Local(1), "fast", "executor 'fast' is unknown; known: auto, dense, sdpa"),
        ("local", "auto", "takes a pattern"),
        (Unbindable(), "auto", "only the first layer"),
    ],
)
def test_wrong_arguments(
    make_encoder: EncoderFactory, pattern: Any, executor: str, message: str, batch: Batch
) -> None:
    model = make_encoder()
    before, expected = model.config._attn_implementation, model(**batch)[0]
    with pytest.raises(ValueError, match=message):
        sparsify(model, pattern, executor)
    assert_still_dense(model, before, batch, expected)


def test_plain_modules() -> None:
    with pytest.raises(ValueError, match="not Linear"):
        sparsify(nn.Linear(2, 2), Local(1))


def test_twice(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(), Local(1))
    expected = hidden_states(model, batch)
    with pytest.raises(ValueError, match="sparse already"):
        sparsify(model, Full())
    assert torch.equal(hidden_states(model, batch), expected)


def test_attention_masks_of_four_dimensions(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(), Local(1))
    with pytest.raises(ValueError, match=r"\(batch, tokens\)"):
        model(batch["input_ids"], attention_mask=torch.ones(4, 1, 12, 12))


def test_two_models_of_one_config_object_do_not_go_wrong_silently(
    make_encoder: EncoderFactory, batch: Batch
) -> None:
    model = make_encoder()
    other = type(model)(model.config).eval()
    sparsify(model, Local(1))
    with pytest.raises(ValueError, match="no pattern"):
        other(**batch)


# Models of which only a part attends through the interface


class OwnAttention(nn.Module):
    """A self-attention as somebody might write it into a layer of a known model."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.value = nn.Linear(size, size)

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return (hidden @ hidden.transpose(1, 2)).softmax(-1) @ self.value(hidden), None


class TwoAttentions(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        return self.first(*args, **kwargs)[0] + self.second(*args, **kwargs)[0], None


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_with_an_attention_of_its_own(
    make_encoder: EncoderFactory, layer: int, batch: Batch
) -> None:
    model = make_encoder()
    model.bert.encoder.layer[layer].attention.self = OwnAttention(16)
    before, expected = model.config._attn_implementation, model(**batch)[0]
    with pytest.raises(ValueError, match="only 1 of its 2 layers"):
        sparsify(model, Local(1))
    assert_still_dense(model, before, batch, expected)


def test_an_attention_beside_the_one_that_is_found(
    make_encoder: EncoderFactory, batch: Batch
) -> None:
    model = make_encoder()
    attention = model.bert.encoder.layer[1].attention
    attention.self = TwoAttentions(attention.self, OwnAttention(16))
    before, expected = model.config._attn_implementation, model(**batch)[0]
    with pytest.raises(ValueError, match="see each other outside"):
        sparsify(model, Local(1))
    assert_still_dense(model, before, batch, expected)


def test_tokens_may_meet_before_the_first_self_attention(make_encoder: EncoderFactory) -> None:
    sparsify(make_encoder("MobileBert", trigram_input=True), Local(1))


# Sparse models of which something is asked that would make them dense


@pytest.mark.parametrize("other", ["sdpa", "eager"])
def test_another_attention_implementation_afterwards(
    make_encoder: EncoderFactory, family: str, other: str, batch: Batch
) -> None:
    model = sparsify(make_encoder(family), Axis() | Local(1))
    expected = hidden_states(model, batch)
    model.set_attn_implementation(other)
    for _ in range(2):
        with pytest.raises(ValueError, match="implementation was changed after sparsify"):
            model(**batch)
    with pytest.raises(ValueError, match="implementation was changed after sparsify"):
        copy.deepcopy(model)(**batch)
    model.set_attn_implementation(IMPLEMENTATION)
    assert torch.equal(hidden_states(model, batch), expected)


@pytest.mark.parametrize("executor", ["sdpa", "auto"])
def test_attention_probabilities_that_are_not_kept(
    make_encoder: EncoderFactory, family: str, executor: str, batch: Batch
) -> None:
    model = sparsify(make_encoder(family), Local(1), executor)
    with pytest.raises(ValueError, match=f"executor '{executor}' keeps no.*executor='dense'"):
        model(**batch, output_attentions=True)
    model(**batch)


def test_a_config_that_turns_causal(make_encoder: EncoderFactory) -> None:
    model = make_encoder()
    sparsify(model, Local(1))
    model.config.is_decoder = True  # would make its mask causal
    with pytest.raises(ValueError, match="bidirectional"):
        model(input_ids=torch.arange(5, 9).unsqueeze(0))
