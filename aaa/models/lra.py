"""Long Range Arena's byte encoder, trained from scratch, and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from aaa.lra_model import CLS, NUM_BYTES, PAD, LraTextConfig, LraTextForSequenceClassification
from aaa.models.encoder import Encoder

VERSION = 1  # to be raised with every change to how the model computes or starts


@dataclass(frozen=True, kw_only=True)
class LraEncoder(Encoder):
    """The encoder of the Text task, new. ``LraTextConfig`` says where its sizes come from.

    Args:
        hidden_size: width of the hidden states, even and a multiple of ``heads``.
        layers: number of layers.
        heads: of each self-attention.
        intermediate_size: width of the feed-forward network and of the head.
        dropout: of embeddings and residuals.
        attention_dropout: of attention probabilities.
        max_length: tokens of the longest text, the classification token counted.

    Raises:
        ValueError: If a size does not fit the above.
    """

    hidden_size: int = 256
    layers: int = 4
    heads: int = 4
    intermediate_size: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.1
    max_length: int = 1001

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("hidden_size", "layers", "heads", "intermediate_size", "max_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be in [0, 1), not {getattr(self, name)}")
        if self.hidden_size % 2 or self.hidden_size % self.heads:
            raise ValueError(
                "model.hidden_size must be even and a multiple of heads "
                f"({self.heads}), not {self.hidden_size}"
            )

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """LRA's: a token for each byte of the text as UTF-8, byte + 1; 0 pads.

        The benchmark's model puts a learned vector in front of every text; here that is a token,
        so that it counts in N as [CLS] does elsewhere. Texts are taken as they are: ``[CLS]`` in
        one is five bytes.
        """
        vocabulary = {"[PAD]": PAD, "[CLS]": CLS}
        vocabulary |= {letter: byte + 1 for byte, letter in enumerate(_letters())}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", pair="[CLS] $A [CLS] $B", special_tokens=[("[CLS]", CLS)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="[PAD]",
            cls_token="[CLS]",
            split_special_tokens=True,
            model_max_length=self.max_length,
            model_input_names=["input_ids", "attention_mask"],
        )

    def classifier(self, num_labels: int) -> LraTextForSequenceClassification:
        """A new model with a head of ``num_labels`` outputs, drawn from torch's current seed."""
        config = LraTextConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate_size,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            max_position_embeddings=self.max_length,
            num_labels=num_labels,
        )
        return LraTextForSequenceClassification(config).to(torch.float32)

    @property
    def num_layers(self) -> int:
        """How many self-attentions the encoder runs one after the other."""
        return self.layers

    def fingerprint(self) -> str:
        """What decides the model before training (but the seed): its version and sizes."""
        sizes = "-".join(f"{field.name}{getattr(self, field.name)}" for field in fields(self))
        return f"lra-v{VERSION}-{sizes}"


def _letters() -> list[str]:
    """The letter that stands for each byte inside byte-level tokenizers (GPT-2's table).

    Printable bytes of Latin-1 stand for themselves, the others for letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(NUM_BYTES))
    return [
        chr(byte) if byte in printable else chr(NUM_BYTES + next(others))
        for byte in range(NUM_BYTES)
    ]
