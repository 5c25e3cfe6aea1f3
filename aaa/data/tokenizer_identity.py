"""What a tokenizer does, as plain data; to be had without transformers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that decides how a fast tokenizer splits texts and numbers tokens."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # These two are left over from the tokenizer's last call and play no part in the next one.
    backend.pop("truncation", None)
    backend.pop("padding", None)
    return backend
