"""Documents of a corpus as a row of token numbers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

if TYPE_CHECKING:  # workers come up sooner without it
    from transformers import PreTrainedTokenizerBase


class DocumentTokenizer:
    """Makes a row of tokens of documents, each that has any followed by a separator.

    Args:
        definition: of the tokenizer, as ``tokenizers`` writes it, so that it can travel to other
            processes.
        separator: number of the separator.
    """

    def __init__(self, definition: str, separator: int) -> None:
        self.definition, self.separator = definition, separator

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> DocumentTokenizer:
        """That of a fast tokenizer."""
        return cls(tokenizer.backend_tokenizer.to_str(), tokenizer.sep_token_id)

    def __getstate__(self) -> dict[str, object]:
        return {"definition": self.definition, "separator": self.separator}

    def __call__(self, texts: list[str | None]) -> np.ndarray:
        """Token numbers, in as few bytes as the vocabulary allows; shape (tokens,).

        A text that is missing counts as empty.
        """
        pieces: list[np.ndarray] = []
        given = [text or "" for text in texts]
        for encoded in self._backend.encode_batch_fast(given, add_special_tokens=False):
            if len(encoded):
                pieces += [np.array(encoded.ids, self._kind), self._end]
        return np.concatenate(pieces) if pieces else np.empty(0, self._kind)

    @cached_property
    def _backend(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self.definition)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # an article that says "[SEP]" means the word
        return tokenizer

    @cached_property
    def _kind(self) -> type:
        small = self._backend.get_vocab_size() <= np.iinfo(np.uint16).max + 1
        return np.uint16 if small else np.uint32

    @cached_property
    def _end(self) -> np.ndarray:
        return np.array([self.separator], self._kind)
