"""What a run needs of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Start(ABC):
    """What a training starts from."""

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """How many self-attentions the encoder runs one after the other."""

    @property
    def windows(self) -> Mapping[int, int]:
        """Layers that attend locally by themselves: how many tokens they reach on each side."""
        return {}

    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies weights and tokenizer: equal strings mean equal starts."""


class Encoder(Start):
    """An encoder with a tokenizer of its own: where it, that and its weights come from."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that belongs to the encoder."""

    @abstractmethod
    def classifier(self, num_labels: int) -> PreTrainedModel:
        """The dense encoder in float32 under a new head with ``num_labels`` outputs.

        What is new is drawn from torch's current random state.
        """


class Pretrainable(Start):
    """An encoder that can be trained as a masked language model."""

    @abstractmethod
    def masked_lm(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
        """The dense encoder in float32 under a masked language model's head.

        What is new is drawn from torch's current random state.

        Args:
            tokenizer: that of its training data; only encoders without one of their own read it.
        """
