"""A pre-trained encoder from the hub or from a local folder of the same layout."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from aaa.fingerprint import hash_files
from aaa.models.encoder import Encoder
from aaa.places import first_line, local_folder

log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, kw_only=True)
class PretrainedEncoder(Encoder):
    """An encoder with the weights that its authors published.

    Args:
        path: hub id (``bert-base-cased``) or local folder with config, safetensors and tokenizer.
        revision: of the hub; None for its main branch.

    Raises:
        ValueError: (from its methods) if the folder is missing or incomplete, or the hub cannot
            be reached.
    """

    path: str
    revision: str | None = None

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that belongs to the encoder."""
        with self._clear_errors("tokenizer"):
            return AutoTokenizer.from_pretrained(self._location(), revision=self.revision)

    def classifier(self, num_labels: int) -> PreTrainedModel:
        """The encoder in float32 under a new head with ``num_labels`` outputs.

        The head is drawn from torch's current random state. Only safetensors are read.
        """
        with self._clear_errors("model"), _quiet_transformers():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                self._location(),
                revision=self.revision,
                num_labels=num_labels,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
        log.info(
            "new weights on top of %s: %s", self.path, ", ".join(sorted(report["missing_keys"]))
        )
        return model

    @property
    def num_layers(self) -> int:
        """As the encoder's config has it."""
        with self._clear_errors("config"):
            config = AutoConfig.from_pretrained(self._location(), revision=self.revision)
        return config.num_hidden_layers

    def fingerprint(self) -> str:
        """Identifies weights and tokenizer: their content, or the hub's id and revision."""
        location = self._location()
        if isinstance(location, Path):
            return hash_files(
                sorted(location.glob("*.json")) + sorted(location.glob("*.safetensors"))
            )
        return f"{self.path}@{self.revision or 'main'}"

    def _location(self) -> str | Path:
        folder = local_folder(self.path, "model.path")
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


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No table about the new head and no bar for a model that loads in a blink."""
    level = transformers_logging.get_verbosity()
    bars: Any = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
