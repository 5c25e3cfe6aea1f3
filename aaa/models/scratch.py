"""A BERT of any size with new weights, to be pre-trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from aaa.fingerprint import hash_json
from aaa.models.encoder import Pretrainable


@dataclass(frozen=True, kw_only=True)
class NewBert(Pretrainable):
    """BERT's architecture and initialisation (Devlin et al., 2019); the vocabulary is the data's.

    The defaults are bert-base's.

    Args:
        hidden_size: width of the hidden states, a multiple of ``heads``.
        layers: number of layers.
        heads: attention heads a layer.
        intermediate_size: width of the feed-forward networks; None for four times the hidden size.
        max_position_embeddings: the most tokens a text may have, in pre-training or later.
        dropout: of hidden states and of attention.
        initializer_range: standard deviation of new weights; BERT's 0.02 suits its width.
        path: of an encoder to go on from instead; ``aaa.experiments`` then takes that one.

    Raises:
        ValueError: naming the size that is out of range.
    """

    hidden_size: int = 768
    layers: int = 12
    heads: int = 12
    intermediate_size: int | None = None
    max_position_embeddings: int = 512
    dropout: float = 0.1
    initializer_range: float = 0.02
    path: str | None = None

    def __post_init__(self) -> None:
        for name in ("hidden_size", "layers", "heads", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be 1 or more, not {getattr(self, name)}")
        if self.hidden_size % self.heads:
            raise ValueError(
                f"model.hidden_size must be a multiple of model.heads ({self.heads}), not "
                f"{self.hidden_size}"
            )
        if not self.initializer_range > 0:
            raise ValueError(
                f"model.initializer_range must be above 0, not {self.initializer_range}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout must be a share in [0, 1), not {self.dropout}")

    def masked_lm(self, tokenizer: PreTrainedTokenizerFast) -> BertForMaskedLM:
        """New weights; as many embeddings as the tokenizer has tokens."""
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate_size or 4 * self.hidden_size,
            max_position_embeddings=self.max_position_embeddings,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            initializer_range=self.initializer_range,
            pad_token_id=tokenizer.pad_token_id,
        )
        return BertForMaskedLM(config)

    @property
    def num_layers(self) -> int:
        return self.layers

    def fingerprint(self) -> str:
        return f"new-bert-{hash_json(asdict(self))[:12]}"
