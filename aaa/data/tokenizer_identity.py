"""What a tokenizer does, as plain data; to be had without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_files(folder: Path) -> list[Path]:
    """The files beside the JSONs of a folder that decide what its tokenizer does.

    None where there is a ``tokenizer.json``, which says everything.
    """
    if (folder / "tokenizer.json").is_file():
        return []
    kinds = ("vocab.txt", "merges.txt", "*.model")
    return [file for kind in kinds for file in sorted(folder.glob(kind))]


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that decides how a fast tokenizer splits texts and numbers tokens."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # These two are left over from the tokenizer's last call and play no part in the next one.
    backend.pop("truncation", None)
    backend.pop("padding", None)
    return backend
