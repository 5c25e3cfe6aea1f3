"""The demo's encoder: BERT's architecture, tiny, with an initialisation that learns fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from aaa.data.bert_tokens import SPECIAL_TOKENS, as_bert
from aaa.data.demo.lexicon import vocabulary
from aaa.fingerprint import hash_json
from aaa.models.encoder import Encoder, Pretrainable
from aaa.models.pretrained import PretrainedEncoder

INITIALISATION_VERSION = 1  # to be raised with every change to how the weights start

# Sizes of the start, found by trial on the five demo tasks (500 steps of 32, learning rate 1e-3).
EMBEDDING_STD = 0.05  # small, so that a step of Adam moves a word far; LayerNorm restores the size
POSITION_SCALE, TEXT_SCALE = 0.5, 2.0  # of these parts of an embedding, relative to the words
NEAR_GAIN, SAME_WORD_GAIN, OTHER_TEXT_GAIN = 2.0, 4.0, 2.0  # of W_q^T W_k
OUTPUT_GAIN, COMPARISON_GAIN = 0.5, -1.0  # of W_o W_v
NOISE = 0.5


@dataclass(frozen=True, kw_only=True)
class TinyEncoder(Encoder, Pretrainable):
    """A BERT that is trained from scratch on the demo tasks within a few hundred steps.

    A Transformer that starts from BERT's usual noise spends its first thousands of steps on
    finding out that tokens can be compared at all. Trained ones have ``W_q^T W_k`` and ``W_o W_v``
    close to multiples of the identity, the latter often negative; starting there ("mimetic
    initialisation", Trockman and Kolter, 2023, arXiv:2305.09828) stands in for pre-training. What
    follows goes further and is ours: each part of an embedding starts in dimensions of its own,

    * positions (sinusoids) in the first quarter, which of the two texts in the next dimension,
      words in the rest;
    * head 0 of every layer compares positions, so it sees the neighbours;
    * head 1 compares words, with the opposite sign for the text, so it sees the same word in the
      *other* text, and subtracts it: a word that is found there cancels, one that is not stays;
    * further heads start with noise.

    All of it is merely a start: every weight is trained.

    Args:
        hidden_size: Width of the hidden states, a multiple of 8 and of ``heads``.
        layers: Number of layers. Three can gather a neighbourhood, compare it and sum up.
        heads: From 2 to 4, so that a head is as wide as the positions or wider.
        max_position_embeddings: The most tokens a text or pair may have.
        path: Where given, the encoder is the one that ``aaa pretrain`` left there (a run's
            directory or a model's folder), whatever the sizes above say.

    Raises:
        ValueError: If a size does not fit the above.
    """

    hidden_size: int = 64
    layers: int = 3
    heads: int = 2
    max_position_embeddings: int = 64
    path: str | None = None

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("hidden_size", "layers", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be 1 or more, not {getattr(self, name)}")
        if not 2 <= self.heads <= 4:
            raise ValueError(f"model.heads must be from 2 to 4, not {self.heads}")
        if self.hidden_size % 8 or self.hidden_size % self.heads:
            raise ValueError(
                "model.hidden_size must be a multiple of 8 and of heads "
                f"({self.heads}), not {self.hidden_size}"
            )

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token for each word of the demo, lowercased; pairs as BERT marks them."""
        if self._pretrained is not None:
            return self._pretrained.tokenizer()
        words = (*SPECIAL_TOKENS, *vocabulary())
        token_ids = {word: token_id for token_id, word in enumerate(words)}
        tokenizer = Tokenizer(models.WordLevel(token_ids, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return as_bert(tokenizer, model_max_length=self.max_position_embeddings)

    def classifier(self, num_labels: int) -> PreTrainedModel:
        """A new model with a head of ``num_labels`` outputs, drawn from torch's current seed.

        Raises:
            ValueError: If ``num_labels`` is not positive.
        """
        if num_labels < 1:
            raise ValueError(f"num_labels must be 1 or more, not {num_labels}")
        if self._pretrained is not None:
            return self._pretrained.classifier(num_labels)
        model = BertForSequenceClassification(self._config(num_labels=num_labels))
        self._start(model.bert)
        with torch.no_grad():
            nn.init.xavier_normal_(model.bert.pooler.dense.weight)
            nn.init.normal_(model.classifier.weight, std=self.hidden_size**-0.5)
        return model

    def masked_lm(self, tokenizer: PreTrainedTokenizerFast | None = None) -> PreTrainedModel:
        """The same start under a masked language model's head, tied to the words' embeddings."""
        if self._pretrained is not None:
            return self._pretrained.masked_lm()
        model = BertForMaskedLM(self._config())
        self._start(model.bert)
        return model

    def _config(self, **further: Any) -> BertConfig:
        return BertConfig(
            vocab_size=len(SPECIAL_TOKENS) + len(vocabulary()),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=2 * self.hidden_size,
            max_position_embeddings=self.max_position_embeddings,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **further,
        )

    @torch.no_grad()
    def _start(self, bert: BertModel) -> None:
        """Draws the weights as the class says."""
        _start_embeddings(bert.embeddings)
        for layer in bert.encoder.layer:
            _start_attention(layer.attention, self.heads)
            nn.init.xavier_normal_(layer.intermediate.dense.weight)
            nn.init.xavier_normal_(layer.output.dense.weight)

    @property
    def _pretrained(self) -> PretrainedEncoder | None:
        return None if self.path is None else PretrainedEncoder(path=self.path)

    @property
    def num_layers(self) -> int:
        """How many self-attentions the encoder runs one after the other."""
        return self.layers if self._pretrained is None else self._pretrained.num_layers

    def fingerprint(self) -> str:
        """What decides the model before training (but the seed): sizes, words, initialisation."""
        if self._pretrained is not None:
            return self._pretrained.fingerprint()
        words = hash_json(vocabulary())[:12]
        return (
            f"tiny-v{INITIALISATION_VERSION}-{self.hidden_size}x{self.layers}"
            f"-heads{self.heads}-positions{self.max_position_embeddings}-words{words}"
        )


def _start_embeddings(embeddings: Any) -> None:
    """Positions, text and words, each in dimensions of its own."""
    words, positions, texts = (
        table.weight
        for table in (
            embeddings.word_embeddings,
            embeddings.position_embeddings,
            embeddings.token_type_embeddings,
        )
    )
    text = words.shape[1] // 4  # the dimension that tells the texts; positions lie before it
    nn.init.normal_(words, std=EMBEDDING_STD)
    words[:, : text + 1] = 0
    nn.init.zeros_(texts)
    texts[:, text] = EMBEDDING_STD * TEXT_SCALE * torch.tensor([1.0, -1.0])
    nn.init.zeros_(positions)
    scale = EMBEDDING_STD * POSITION_SCALE * math.sqrt(2)  # a sinusoid's mean square is 1/2
    positions[:, :text] = scale * _sinusoids(len(positions), text)


def _sinusoids(num_positions: int, width: int) -> Tensor:
    """Sines and cosines of wavelengths from 2 pi to nearly 200 pi; (num_positions, width)."""
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(100.0) / width))
    angles = torch.arange(num_positions)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _start_attention(attention: Any, num_heads: int) -> None:
    """Head 0 looks at neighbours, head 1 at the same word in the other text."""
    query, key, value = (
        getattr(attention.self, name).weight for name in ("query", "key", "value")
    )
    output = attention.output.dense.weight
    hidden_size = len(output)
    head_size, text = hidden_size // num_heads, hidden_size // 4
    for weight in (query, key, value, output):
        nn.init.normal_(weight, std=NOISE * hidden_size**-0.5)

    near, match = slice(0, head_size), slice(head_size, 2 * head_size)
    positions = torch.eye(head_size, text) * math.sqrt(NEAR_GAIN)
    words = torch.empty(head_size - 1, hidden_size - text - 1)
    words = nn.init.orthogonal_(words) * math.sqrt(SAME_WORD_GAIN)
    for weight, sign in ((query, 1.0), (key, -1.0)):
        weight[near, :text] += positions
        weight[match, text + 1 :][:-1] += words
        weight[match, text][-1] += sign * OTHER_TEXT_GAIN

    basis = nn.init.orthogonal_(torch.empty(hidden_size, hidden_size))
    gains = torch.full((hidden_size,), OUTPUT_GAIN)
    gains[match] = COMPARISON_GAIN
    value += gains.abs().sqrt()[:, None] * basis
    output += (gains.sign() * gains.abs().sqrt()) * basis.T
