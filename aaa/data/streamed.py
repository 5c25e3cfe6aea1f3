"""Blocks of a corpus that is tokenised while it is trained on, because it does not fit the disk.

Shape suffixes: B blocks, N tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from aaa.data.blocks import as_batch, framed
from aaa.data.corpus import TEXT, Corpus
from aaa.data.document_tokenizer import DocumentTokenizer
from aaa.data.masking import Masking
from aaa.data.packing import TokenStream

POOL = 4096  # so many blocks are cut one after the other, and drawn from in random order
HELD_OUT_DOCUMENTS = 500  # the first ones of a stream


class Place(NamedTuple):
    """A token of a stream that is read again and again."""

    epoch: int
    document: int  # behind those held out
    token: int  # of that document


class StreamedBlocks(Dataset):
    """Batches of blocks with tokens hidden, by number, as ``MaskedBlocks`` makes them.

    Documents come in the order of the stream, its beginning after its end, without any rest. What
    is kept in a checkpoint is where a pool of blocks begins: from there on the stream is read
    again, so that every number stands for the same block in a resumed run. Documents before that
    are passed over untokenised. All processes read all of the stream.

    Args:
        corpus: gives the stream.
        tokenizer: a fast one with [CLS], [SEP] and [PAD].
        length: N, the special tokens at both ends counted.
        masking: what hides tokens.
        shuffle_seed: of the order within a pool.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        masking: Masking,
        shuffle_seed: int,
    ) -> None:
        self.corpus, self.length, self.masking = corpus, length, masking
        self.shuffle_seed = shuffle_seed
        self.tokenise = DocumentTokenizer.of(tokenizer)
        self.ends = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
        self._pools: deque[tuple[int, np.ndarray]] = deque(maxlen=2)  # a batch may span two
        self._begins = {0: Place(0, 0, 0)}  # of the latest pools and the one after them
        self._tokens: Iterator[tuple[Place, np.ndarray]] | None = None
        self._left: deque[tuple[Place, np.ndarray]] = deque()  # read but not yet cut

    def __getitems__(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        """A batch; numbers may go back by a pool at the most."""
        rows = [self._pool(number // POOL)[number % POOL] for number in numbers]
        ids_BN = framed(rows, self.length, self.ends)
        return as_batch(ids_BN, self.masking, numbers, self.ends[2])

    def state(self, number: int) -> dict[str, Any]:
        """Where the pool of a number begins, which must be the latest pool or the one after it."""
        pool = number // POOL
        while pool not in self._begins:
            self._cut()
        return {"pool": pool, "begin": list(self._begins[pool])}

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on with a pool where it begins."""
        self._pools.clear()
        self._left.clear()
        self._tokens, self._begins = None, {state["pool"]: Place(*state["begin"])}

    def _pool(self, number: int) -> np.ndarray:
        """The blocks' tokens in the order in which they are drawn, (POOL, N - 2)."""
        assert number in dict(self._pools) or number >= max(self._begins)
        while number not in dict(self._pools):  # a process may pass over pools that are others'
            self._cut()
        return dict(self._pools)[number]

    def _cut(self) -> None:
        """The next pool, in the order of the stream."""
        number, begin = max(self._begins.items())
        if self._tokens is None:
            self._tokens = self._documents(begin)
        width = self.length - 2
        row = self._take(POOL * width).reshape(POOL, width)
        self._begins = {n: place for n, place in self._begins.items() if n >= number - 1}
        self._begins[number + 1] = self._next_place()
        order = np.random.default_rng((self.shuffle_seed, number)).permutation(POOL)
        self._pools.append((number, row[order]))

    def _take(self, count: int) -> np.ndarray:
        assert self._tokens is not None
        pieces: list[np.ndarray] = []
        while count:
            if not self._left:
                self._left.append(next(self._tokens))
            place, ids = self._left.popleft()
            pieces.append(ids[:count])
            if len(ids) > count:
                rest = place._replace(token=place.token + count)
                self._left.appendleft((rest, ids[count:]))
            count -= len(pieces[-1])
        return np.concatenate(pieces)

    def _next_place(self) -> Place:
        assert self._tokens is not None
        if not self._left:
            self._left.append(next(self._tokens))
        return self._left[0][0]

    def _documents(self, begin: Place) -> Iterator[tuple[Place, np.ndarray]]:
        """The tokens of documents that have any, from a place on, without end."""
        epoch, skipped, token = begin
        while True:
            stream = self.corpus.stream().skip(HELD_OUT_DOCUMENTS + skipped)
            found = 0
            for number, row in enumerate(stream, start=skipped):
                found += len(ids := self.tokenise([row[TEXT]]))
                if len(ids):
                    yield Place(epoch, number, token), ids[token:]
                    token = 0
            if not found and not skipped:
                raise ValueError(
                    f"the stream of {self.corpus.name} has no text behind the first "
                    f"{HELD_OUT_DOCUMENTS} documents, which are held out"
                )
            epoch, skipped, token = epoch + 1, 0, 0


def held_out_tokens(corpus: Corpus, tokenizer: PreTrainedTokenizerBase) -> TokenStream:
    """The tokens of the documents at the beginning of a stream, which are not trained on."""
    texts = [row[TEXT] for row in corpus.stream().take(HELD_OUT_DOCUMENTS)]
    tokenise = DocumentTokenizer.of(tokenizer)
    return TokenStream([tokenise(texts)])
