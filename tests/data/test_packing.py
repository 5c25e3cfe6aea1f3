"""A corpus as tokens: all of them, once, in order, whatever interrupts the work."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from aaa.data import packing
from aaa.data.corpus import Corpus, Wikipedia
from aaa.data.demo.corpus import DemoCorpus
from aaa.data.packing import TokenStream, pack
from aaa.models.tiny import TinyEncoder

TOKENIZER = TinyEncoder().tokenizer()
SEP = TOKENIZER.sep_token_id


@dataclass(frozen=True, kw_only=True)
class Texts(Corpus):
    """A corpus of given texts."""

    name: str = "texts"
    texts: tuple[str, ...]

    def load(self) -> Dataset:
        return Dataset.from_dict({"text": list(self.texts)})

    def fingerprint(self) -> str:
        return str(self.texts)


def expected(texts: list[str]) -> list[int]:
    """The plain way."""
    ids: list[int] = []
    for text in texts:
        own = TOKENIZER(text, add_special_tokens=False)["input_ids"]
        ids += [*own, SEP] if own else []
    return ids


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "DOCUMENTS_A_PART", 7)
    monkeypatch.setattr(packing, "DOCUMENTS_AT_ONCE", 3)


def test_every_token_of_every_document_in_order(tmp_path: Path) -> None:
    corpus = DemoCorpus(num_documents=50)
    texts = list(corpus.load()["text"])
    streams = pack(corpus, TOKENIZER, 0.1, tmp_path)
    held_out = texts[9::10]
    trained_on = [text for number, text in enumerate(texts) if number % 10 != 9]
    for split, own in (("train", trained_on), ("validation", held_out)):
        ids = streams[split].read(0, len(streams[split]))
        assert ids.tolist() == expected(own)
        assert ids.dtype == np.uint16
    assert len(streams["train"].parts) == 7  # 45 documents, 7 a part


def test_it_is_read_from_disk_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = DemoCorpus(num_documents=30)
    first = pack(corpus, TOKENIZER, 0.1, tmp_path)
    monkeypatch.setattr(packing, "_tokenise", None)
    again = pack(corpus, TOKENIZER, 0.1, tmp_path)
    assert isinstance(again["train"].parts[0], np.memmap)
    assert (again["train"].read(0, 10**6) == first["train"].read(0, 10**6)).all()


def test_interrupted_work_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    corpus = DemoCorpus(num_documents=50)
    whole = pack(corpus, TOKENIZER, 0.1, tmp_path / "whole")["train"]
    written: list[str] = []
    write = packing.PartWriter.__call__

    def fail_at_the_fourth(self: Any, part: packing.Part) -> packing.Part:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(part.file)
        return write(self, part)

    monkeypatch.setattr(packing.PartWriter, "__call__", fail_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        pack(corpus, TOKENIZER, 0.1, tmp_path)
    [folder] = (tmp_path / "tokens").iterdir()
    (folder / "tmpxyz.partial").write_bytes(b"half")  # of a process that was killed
    monkeypatch.setattr(packing.PartWriter, "__call__", write)
    resumed = pack(corpus, TOKENIZER, 0.1, tmp_path)["train"]
    assert "of 50 documents were tokenised before" in caplog.text
    assert (resumed.read(0, 10**6) == whole.read(0, 10**6)).all()
    assert not list(folder.glob("*.partial"))


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def put_in_place_of_another(file: Path) -> None:
    np.save(file, np.zeros(3, np.uint16))


@pytest.mark.parametrize("harm", [Path.unlink, cut_off, put_in_place_of_another])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_files_that_are_lost_or_damaged_are_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], split: str
) -> None:
    corpus = DemoCorpus(num_documents=150)
    before = {
        name: stream.read(0, 10**6).copy()
        for name, stream in pack(corpus, TOKENIZER, 0.1, tmp_path).items()
    }
    [folder] = (tmp_path / "tokens").iterdir()
    harm(folder / f"{split}-00001.npy")
    for _ in range(2):
        again = pack(corpus, TOKENIZER, 0.1, tmp_path)
        assert all((again[name].read(0, 10**6) == ids).all() for name, ids in before.items())
    assert caplog.text.count("files are lost or damaged, and are made again") == 1


def test_empty_documents_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    texts = ("", "the film is good .", "  ", "a red key .", "the cast .", "the key .")
    streams = pack(Texts(texts=texts), TOKENIZER, 0.5, tmp_path)
    assert "6 documents (2 empty)" in caplog.text
    assert streams["validation"].read(0, 99).tolist() == expected(list(texts[1::2]))


def test_special_tokens_in_a_text_are_words(tmp_path: Path) -> None:
    texts = ("the [MASK] is [SEP] red", "the key")
    train = pack(Texts(texts=texts), TOKENIZER, 0.5, tmp_path)["train"].read(0, 99)
    assert (train == SEP).sum() == 1
    assert TOKENIZER.mask_token_id not in train


@pytest.mark.slow
def test_several_processes_write_the_same(tmp_path: Path) -> None:
    corpus = DemoCorpus(num_documents=50)
    done: list[tuple[int, int]] = []
    one = pack(corpus, TOKENIZER, 0.1, tmp_path / "one")["train"]
    two = pack(corpus, TOKENIZER, 0.1, tmp_path / "two", 2, lambda *counts: done.append(counts))[
        "train"
    ]
    assert (one.read(0, 10**6) == two.read(0, 10**6)).all()
    assert done[-1] == (50, 50)
    assert sorted(done) == done


def test_two_at_once_do_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    corpus = DemoCorpus(num_documents=30)
    calls = []
    tokenise = packing._tokenise
    begun = threading.Event()

    def slow(*arguments: Any) -> dict[str, TokenStream]:
        calls.append(1)
        begun.set()
        while "waiting for another process" not in caplog.text:
            pass
        return tokenise(*arguments)

    monkeypatch.setattr(packing, "_tokenise", slow)
    other = threading.Thread(target=pack, args=(corpus, TOKENIZER, 0.1, tmp_path))
    other.start()
    begun.wait()
    streams = pack(corpus, TOKENIZER, 0.1, tmp_path)
    other.join()
    assert len(calls) == 1
    assert len(streams["train"])


def test_a_stream_is_read_across_parts() -> None:
    parts = [np.arange(0, 5), np.arange(0), np.arange(5, 7), np.arange(7, 20)]
    stream = TokenStream(parts)
    assert len(stream) == 20
    for start, stop in ((0, 20), (3, 8), (5, 7), (4, 5), (6, 20), (19, 25)):
        assert stream.read(start, stop).tolist() == list(range(start, min(stop, 20)))


def test_a_share_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves none to train on or none to hold out"):
        pack(DemoCorpus(num_documents=5), TOKENIZER, 0.1, tmp_path)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, _: np.ndarray) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packing.np, "save", full)
    with pytest.raises(ValueError, match=r"npy cannot be written: No space left .* goes on from"):
        pack(DemoCorpus(num_documents=60), TOKENIZER, 0.1, tmp_path, num_workers=1)
    assert not [*tmp_path.rglob("*.partial"), *tmp_path.rglob("*.npy")]


def test_a_column_that_holds_no_texts() -> None:
    numbers = Dataset.from_dict({"text": [1, 2]})
    with pytest.raises(ValueError, match="no texts in its column 'text': int64"):
        Wikipedia()._text_of(numbers)
