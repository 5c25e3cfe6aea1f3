"""A pre-trained encoder from the hub or from a local folder of the same layout."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from aaa.data.tokenizer_identity import tokenizer_files
from aaa.fingerprint import hash_files
from aaa.models.encoder import Encoder, Pretrainable
from aaa.models.positions import extend_positions, longest_text
from aaa.numbers import is_number
from aaa.places import first_line, local_folder
from aaa.record import drop_record
from aaa.saved import quiet_transformers

log = logging.getLogger(__name__)

SLIDING = "sliding_attention"  # transformers' name
EXPORT = "model"  # where a run's directory has its encoder


@dataclass(frozen=True, kw_only=True)
class PretrainedEncoder(Encoder, Pretrainable):
    """An encoder with the weights that its authors published.

    Args:
        path: hub id (``bert-base-cased``), local folder with config, safetensors and tokenizer, or
            the directory of a finished run.
        revision: of the hub; None for its main branch.
        max_position_embeddings: the most tokens a text may have; None for what it was trained on.
            Beyond that, its learned positions are repeated (``extend_positions``).

    Raises:
        ValueError: if the most tokens are fewer than one; (from its methods) if the folder is
            missing or incomplete, the hub cannot be reached, or positions cannot be extended so.
    """

    path: str
    revision: str | None = None
    max_position_embeddings: int | None = None

    def __post_init__(self) -> None:
        """Check the length."""
        longest = self.max_position_embeddings
        if longest is not None and not (is_number(longest, int) and longest >= 1):
            raise ValueError(
                f"model.max_position_embeddings must be null or 1 or more, not {longest!r}"
            )

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that belongs to the encoder; it knows the longest text of both."""
        with self._clear_errors("tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(self._location(), revision=self.revision)
        positions = getattr(self._config, "max_position_embeddings", None)
        if self.max_position_embeddings is not None:
            tokenizer.model_max_length = self.max_position_embeddings
        elif positions and tokenizer.model_max_length >= positions:
            # A tokenizer that was saved by itself may say nothing, or something else.
            tokenizer.model_max_length = self._longest_text(positions)
        return tokenizer

    def _longest_text(self, positions: int) -> int:
        """RoBERTa's kin use fewer positions than their config names, as only a model knows."""
        if type(self._config) not in MODEL_MAPPING:
            return positions
        with torch.device("meta"):  # nothing is drawn and nothing is held
            return longest_text(AutoModel.from_config(self._config))

    def classifier(self, num_labels: int) -> PreTrainedModel:
        """The encoder in float32 under a new head with ``num_labels`` outputs.

        The head is drawn from torch's current random state, unless the weights come with one of
        as many outputs. Only safetensors are read. The gates of an encoder that was saved sparse
        stay behind, so that it can be put under any pattern.

        Raises:
            ValueError: also if weights do not have the shapes that the config says.
        """
        return self._load(AutoModelForSequenceClassification, num_labels=num_labels)

    def masked_lm(self, tokenizer: PreTrainedTokenizerFast | None = None) -> PreTrainedModel:
        """The encoder in float32 under its masked language model's head, a new one if it has none.

        Gates stay behind, as in ``classifier``.

        Raises:
            ValueError: also if weights do not have the shapes that the config says.
        """
        return self._load(AutoModelForMaskedLM)

    def _load(self, kind: Any, **options: Any) -> PreTrainedModel:
        with self._clear_errors("model"), quiet_transformers():
            model, report = kind.from_pretrained(
                self._location(),
                revision=self.revision,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # a head of another task
                output_loading_info=True,
                **options,
            )
        pattern = drop_record(model.config)
        if pattern is not None:
            log.info("%s was saved sparse: the gates of its %s are left out", self.path, pattern)
        resized = {name for name, *_ in report["mismatched_keys"]}
        wrong = sorted(name for name in resized if name.startswith(f"{model.base_model_prefix}."))
        if wrong:
            raise ValueError(f"model.path: in {self.path}, {wrong[0]} does not fit config.json")
        if self.max_position_embeddings is not None:
            extend_positions(model, self.max_position_embeddings)
        new = sorted(resized | report["missing_keys"])
        log.info("new weights on top of %s: %s", self.path, ", ".join(new) or "none")
        return model

    @property
    def num_layers(self) -> int:
        """As the encoder's config has it."""
        return self._config.num_hidden_layers

    @property
    def windows(self) -> Mapping[int, int]:
        """Of layers whose attention the encoder's config calls sliding, as in ModernBERT."""
        config = self._config
        kinds = enumerate(getattr(config, "layer_types", None) or ())
        return {layer: config.sliding_window for layer, kind in kinds if kind == SLIDING}

    @cached_property
    def _config(self) -> PretrainedConfig:
        with self._clear_errors("config"):
            return AutoConfig.from_pretrained(self._location(), revision=self.revision)

    def fingerprint(self) -> str:
        """Identifies weights, positions and tokenizer: their content, or the hub's id."""
        location = self._location()
        if isinstance(location, Path):
            found = (sorted(location.glob(kind)) for kind in ("*.json", "*.safetensors"))
            weights = hash_files([*itertools.chain(*found), *tokenizer_files(location)])
        else:
            weights = f"{self.path}@{self.revision or 'main'}"
        longest = self.max_position_embeddings
        return weights if longest is None else f"{weights} of {longest} positions"

    def _location(self) -> str | Path:
        folder = local_folder(self.path, "model.path")
        if folder is not None and (folder / EXPORT / "config.json").is_file():
            return folder / EXPORT
        if folder is not None and not (folder / "config.json").is_file():
            raise ValueError(
                f"model.path: {folder} is no Hugging Face model: it has no config.json"
            )
        return folder or self.path

    @contextmanager
    def _clear_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ConnectionError) as error:
            if isinstance(self._location(), Path):
                raise ValueError(
                    f"model.path: {self.path} has no readable {what}: {first_line(error)}"
                ) from error
            raise ValueError(
                f"model.path: the hub's {self.path!r} could not be read. Is there no network, or "
                "no such model? A local folder (config.json, model.safetensors, tokenizer.json) "
                f"serves as well. The hub's client said: {first_line(error)}"
            ) from error
