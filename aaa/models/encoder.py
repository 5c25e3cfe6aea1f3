"""What a run needs of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from transformers import PreTrainedModel, PreTrainedTokenizerFast


class Encoder(ABC):
    """Where an encoder, its tokenizer and its weights come from."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that belongs to the encoder."""

    @abstractmethod
    def classifier(self, num_labels: int) -> PreTrainedModel:
        """The dense encoder in float32 under a new head with ``num_labels`` outputs.

        What is new is drawn from torch's current random state.
        """

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """How many self-attentions the encoder runs one after the other."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies the weights and the tokenizer: equal strings mean equal encoders."""
