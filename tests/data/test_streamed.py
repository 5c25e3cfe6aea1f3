"""Streamed blocks: the tokens of the stream without rest, and the same ones after a resume."""

from __future__ import annotations

import numpy as np
import pytest

from aaa.data import streamed
from aaa.data.demo.corpus import DemoCorpus
from aaa.data.document_tokenizer import DocumentTokenizer
from aaa.data.masking import Masking
from aaa.data.streamed import StreamedBlocks, held_out_tokens
from aaa.models.tiny import TinyEncoder
from tests.data.test_packing import Texts

TOKENIZER = TinyEncoder().tokenizer()
ENDS = (TOKENIZER.pad_token_id, TOKENIZER.cls_token_id, TOKENIZER.sep_token_id)
CORPUS = DemoCorpus(num_documents=60)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "POOL", 8)
    monkeypatch.setattr(streamed, "HELD_OUT_DOCUMENTS", 10)


def make(corpus: DemoCorpus | Texts = CORPUS) -> StreamedBlocks:
    masking = Masking(0.15, len(TOKENIZER), TOKENIZER.mask_token_id, ENDS, 0)
    return StreamedBlocks(corpus, TOKENIZER, 32, masking, shuffle_seed=0)


def read(blocks: StreamedBlocks, first: int, last: int) -> np.ndarray:
    return np.concatenate(
        [blocks.__getitems__([n, n + 1])["input_ids"].numpy() for n in range(first, last, 2)]
    )


def test_pools_hold_the_stream_without_rest_and_begin_again() -> None:
    blocks = make()
    texts = list(CORPUS.load()["text"])
    once = DocumentTokenizer.of(TOKENIZER)(texts[10:])
    pools = [np.sort(blocks._pool(number), axis=None) for number in range(12)]
    count = 12 * 8 * 30
    assert count > len(once)  # more than one epoch
    row = np.resize(once, count).reshape(12, -1)
    assert all((pool == np.sort(own)).all() for pool, own in zip(pools, row, strict=True))
    assert held_out_tokens(CORPUS, TOKENIZER).read(0, 10**6).tolist() == (
        DocumentTokenizer.of(TOKENIZER)(texts[:10]).tolist()
    )


@pytest.mark.parametrize("at", [6, 8, 50, 80])
def test_a_resumed_stream_goes_on_with_the_very_next_blocks(at: int) -> None:
    """Amid a pool, between two, and in the second epoch."""
    undisturbed, first, second = make(), make(), make()
    whole = read(undisturbed, 0, at + 20)
    read(first, 0, at)
    second.load_state(first.state(at))
    assert (read(second, at, at + 20) == whole[at:]).all()


@pytest.mark.parametrize("begin", [0, 8])
def test_a_process_passes_over_pools_that_are_others(begin: int) -> None:
    """A rank's first block may lie pools behind the one that a checkpoint knows."""
    undisturbed, rank = make(), make()
    whole = read(undisturbed, 0, 60)
    rank.load_state(undisturbed.state(56) | make().state(begin))
    assert (read(rank, 36, 60) == whole[36:60]).all()


def test_a_text_that_is_missing_counts_as_empty() -> None:
    tokenise = DocumentTokenizer.of(TOKENIZER)
    text = CORPUS.load()["text"][0]
    assert (tokenise([None, text, ""]) == tokenise([text])).all()


def test_a_stream_without_text() -> None:
    blocks = make(Texts(texts=("the key .",) * 10 + ("",) * 3))
    with pytest.raises(ValueError, match="has no text behind the first 10 documents"):
        blocks.__getitems__([0])
