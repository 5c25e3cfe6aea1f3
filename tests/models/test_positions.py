"""More positions than an encoder was trained on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import BertTokenizerFast

import aaa
from aaa import Axis, Local, sparsify
from aaa.models.positions import extend_positions, longest_input, longest_text
from aaa.models.pretrained import PretrainedEncoder
from tests.conftest import EncoderFactory
from tests.encoders import IMAGE, build

WITH_A_TABLE = ["Bert", "Roberta", "DistilBert", "Electra", "Albert", "MobileBert"]


def embed(model: Any, length: int, start: int = 0) -> torch.Tensor:
    """What the layers read of a text of one token repeated, from ``start`` on."""
    ids_BN = torch.full((1, length), 7)
    return model.base_model.embeddings(input_ids=ids_BN)[0, start:]


def test_the_longest_text(make_encoder: EncoderFactory) -> None:
    bert, roberta = make_encoder(), make_encoder("Roberta")
    assert longest_text(bert) == bert.config.max_position_embeddings
    assert longest_text(roberta) == roberta.config.max_position_embeddings - 2
    nameless: Any = SimpleNamespace(config=SimpleNamespace())
    with pytest.raises(ValueError, match="has no max_position_embeddings"):
        longest_text(nameless)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "ModernBert"])
def test_a_tokenizer_that_names_no_longest_text(
    family: str, make_encoder: EncoderFactory, tmp_path: Path
) -> None:
    """RoBERTa has two positions fewer than its config says."""
    encoder = make_encoder(family)
    encoder.save_pretrained(tmp_path)
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    BertTokenizerFast(tokenizer_object=Tokenizer(WordPiece(words))).save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    tokenizer = PretrainedEncoder(path=str(tmp_path)).tokenizer()
    assert tokenizer.model_max_length == longest_text(encoder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_models_that_do_not_read_one_text_a_sample(make_encoder: EncoderFactory) -> None:
    tokenizer: Any = SimpleNamespace(model_max_length=16)
    assert longest_input(make_encoder(), tokenizer) == 16
    with pytest.raises(ValueError, match=r"several texts .* head, load_sparse\(folder, BertModel"):
        longest_input(make_encoder(head="ForMultipleChoice"), tokenizer)
    with pytest.raises(ValueError, match="ViTModel reads pixel_values, but only encoders"):
        longest_input(build("ViT", IMAGE), tokenizer)


@pytest.mark.parametrize("family", WITH_A_TABLE)
def test_positions_are_repeated(family: str, make_encoder: EncoderFactory) -> None:
    model = make_encoder(family).eval()
    learned = longest_text(model)
    short = torch.arange(5, 5 + learned)[None] % 40 + 5
    before = model(input_ids=short)[0]
    extend_positions(model, 2 * learned + 3)
    assert longest_text(model) == 2 * learned + 3
    assert torch.equal(model(input_ids=short)[0], before)
    with torch.no_grad():
        embedded_ND = embed(model, 2 * learned + 3)
    for start in (learned, 2 * learned):
        again_ND = embedded_ND[start : start + learned]
        torch.testing.assert_close(again_ND, embedded_ND[: len(again_ND)])
    assert not torch.allclose(embedded_ND[learned], embedded_ND[learned - 1])
    with pytest.raises((IndexError, RuntimeError)):
        embed(model, 2 * learned + 4)


@pytest.mark.parametrize("family", WITH_A_TABLE)
def test_all_are_trained_and_saved(
    family: str, make_encoder: EncoderFactory, tmp_path: Path
) -> None:
    model = make_encoder(family)
    longest = longest_text(model) + 20
    extend_positions(model, longest)
    sparsify(model, Axis() | Local(2))
    ids = torch.randint(5, 40, (2, longest))
    model(input_ids=ids)[0].sum().backward()
    table = model.base_model.embeddings.position_embeddings
    assert table.weight.grad is not None
    assert table.weight.grad[-1].any()
    model.save_pretrained(tmp_path)
    again = aaa.load_sparse(tmp_path).eval()
    assert torch.equal(again(input_ids=ids)[0], model.eval()(input_ids=ids)[0])


def test_what_cannot_be_extended(make_encoder: EncoderFactory) -> None:
    with pytest.raises(ValueError, match="ModernBertModel has no table of learned positions"):
        extend_positions(make_encoder("ModernBert"), 4000)
    model = make_encoder()
    learned = longest_text(model)
    with pytest.raises(ValueError, match=f"is 4, but the encoder has {learned} already"):
        extend_positions(model, 4)
    extend_positions(model, learned)
    assert longest_text(model) == learned


class TestPretrained:
    @pytest.fixture
    def folder(self, make_encoder: EncoderFactory, tmp_path: Path) -> Path:
        make_encoder().save_pretrained(tmp_path / "encoder")
        return tmp_path / "encoder"

    @pytest.mark.parametrize("kind", ["classifier", "masked_lm"])
    def test_its_models_take_longer_texts(self, folder: Path, kind: str) -> None:
        encoder = PretrainedEncoder(path=str(folder), max_position_embeddings=300)
        model = encoder.classifier(2) if kind == "classifier" else encoder.masked_lm()
        assert model(input_ids=torch.full((1, 300), 7)).logits.isfinite().all()

    def test_the_tokenizer_knows_them(self, folder: Path) -> None:
        words = {
            word: at for at, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        }
        BertTokenizerFast(tokenizer_object=Tokenizer(WordPiece(words))).save_pretrained(folder)
        for longest, expected in ((None, 64), (300, 300)):
            encoder = PretrainedEncoder(path=str(folder), max_position_embeddings=longest)
            assert encoder.tokenizer().model_max_length == expected

    def test_they_are_another_start(self, folder: Path) -> None:
        starts = [
            PretrainedEncoder(path=str(folder), max_position_embeddings=longest).fingerprint()
            for longest in (None, 300, 301)
        ]
        assert len(set(starts)) == 3

    @pytest.mark.parametrize("longest", [0, -1, 2.5, True, "many"])
    def test_lengths_that_are_none(self, longest: Any) -> None:
        with pytest.raises(ValueError, match="max_position_embeddings must be null or 1 or more"):
            PretrainedEncoder(path="anywhere", max_position_embeddings=longest)
