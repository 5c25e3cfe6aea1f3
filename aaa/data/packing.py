"""A corpus as one long row of token numbers, tokenised once, and read from disk as it is needed.

On disk it is a folder of parts, each the tokens of some thousand documents, so that work that was
interrupted goes on with the first part that is missing, and that no part need fit the memory.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from datasets import Dataset
from filelock import FileLock, Timeout

from aaa.data.corpus import TEXT, Corpus
from aaa.data.document_tokenizer import DocumentTokenizer
from aaa.data.tokenizer_identity import tokenizer_identity
from aaa.fingerprint import hash_json

if TYPE_CHECKING:  # workers come up sooner without it
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FORMAT = 1  # to be raised when the same input comes to make other tokens
SPLITS = ("train", "validation")
DOCUMENTS_A_PART = 1000
DOCUMENTS_AT_ONCE = 100  # handed to the tokenizer together
SUMMARY = "summary.json"  # written last: the folder is whole

Progress = Callable[[int, int], None]  # told how many documents are done, of how many


@dataclass(frozen=True, eq=False)
class Part:
    """Documents of a split, by their numbers, that are tokenised to one file."""

    split: str
    number: int
    documents: np.ndarray

    @property
    def file(self) -> str:
        return f"{self.split}-{self.number:05d}.npy"


class TokenStream:
    """The tokens of all documents of a split, each document followed by a separator.

    Args:
        parts: arrays of token numbers, memory-mapped or not, one after the other.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = [part for part in parts if len(part)]
        self.ends = np.cumsum([0, *map(len, self.parts)])[1:]

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens ``start`` to ``stop``, as many as there are; shape (tokens,)."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        pieces = []
        for part, end in zip(self.parts[first:], self.ends[first:], strict=True):
            begin = int(end) - len(part)
            pieces.append(part[max(0, start - begin) : stop - begin])
            if stop <= end:
                break
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]


def pack(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    held_out: float,
    cache_dir: Path,
    num_workers: int = 1,
    progress: Progress | None = None,
) -> dict[str, TokenStream]:
    """Tokenise a corpus, or read what was tokenised before.

    Nothing is cut and nothing left out but documents without any token, which are counted. Files
    that were lost or damaged since are written again.

    Args:
        corpus: the documents.
        tokenizer: a fast tokenizer with a separator.
        held_out: share of the documents that make the ``validation`` split: every n-th.
        cache_dir: folder of the cache. Processes that ask for the same at once do it once.
        num_workers: processes that tokenise.
        progress: told of the documents that are done.

    Returns:
        ``train`` and ``validation``.

    Raises:
        ValueError: if the tokenizer is not a fast one, or a split would be empty.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} has no fast version (a tokenizer.json)"
        )
    key = hash_json(
        [FORMAT, corpus.fingerprint(), tokenizer_identity(tokenizer), held_out, DOCUMENTS_A_PART]
    )
    folder = cache_dir / "tokens" / key
    streams = _read(folder, held_out, corpus.name)
    if streams is None:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, corpus.name):
            streams = _read(folder, held_out, corpus.name) or _tokenise(
                corpus, tokenizer, held_out, folder, num_workers, progress
            )
    return streams


def _read(folder: Path, held_out: float, name: str) -> dict[str, TokenStream] | None:
    """The tokens of every split; None unless they are there to the last one."""
    summary = _summary(folder)
    if summary is None:
        return None
    parts = _parts(summary["documents"], held_out, name)
    whole = _whole(folder, parts, summary)
    return _streams(whole) if len(whole) == len(parts) else None


def _summary(folder: Path) -> dict[str, int] | None:
    try:
        return dict(json.loads((folder / SUMMARY).read_text()))
    except (OSError, ValueError):
        return None


def _whole(
    folder: Path, parts: Sequence[Part], counted: Mapping[str, int] | None
) -> dict[Part, np.ndarray]:
    """Those parts that can be read, without splits that have other tokens than were counted."""
    found: dict[Part, np.ndarray] = {}
    for part in parts:
        with suppress(OSError, ValueError, EOFError):  # as NumPy tells a file that is cut off
            found[part] = np.load(folder / part.file, mmap_mode="r")
    if counted is None or len(found) < len(parts):
        return found
    tokens = {split: len(stream) for split, stream in _streams(found).items()}
    return {part: ids for part, ids in found.items() if tokens[part.split] == counted[part.split]}


def _streams(written: Mapping[Part, np.ndarray]) -> dict[str, TokenStream]:
    return {
        split: TokenStream([ids for part, ids in written.items() if part.split == split])
        for split in SPLITS
    }


def _tokenise(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    held_out: float,
    folder: Path,
    num_workers: int,
    progress: Progress | None,
) -> dict[str, TokenStream]:
    """Writes the parts that are not there whole, then the summary."""
    documents = corpus.load()
    parts = _parts(len(documents), held_out, corpus.name)
    whole = _whole(folder, parts, _summary(folder))
    missing = [part for part in parts if part not in whole]
    if missing and (folder / SUMMARY).exists():
        lost = f"{len(missing)} of {len(parts)} files are lost or damaged, and are made again"
        log.warning("%s: %s", folder, lost)
    done = len(documents) - sum(len(part.documents) for part in missing)
    if done:
        log.info("%d of %d documents were tokenised before", done, len(documents))
    separator = tokenizer.sep_token_id
    writer = PartWriter(documents, DocumentTokenizer.of(tokenizer), folder)
    for part in _written(writer, missing, num_workers):
        done += len(part.documents)
        if progress is not None:
            progress(done, len(documents))
    written = {part: np.load(folder / part.file, mmap_mode="r") for part in parts}
    streams = _streams(written)
    tokens = {split: len(stream) for split, stream in streams.items()}
    full = sum(int(np.count_nonzero(ids == separator)) for ids in written.values())
    summary = tokens | {"documents": len(documents), "empty": len(documents) - full}
    log.info(
        "%s: %d documents (%d empty), %d tokens to train on, %d held out",
        corpus.name, len(documents), summary["empty"], tokens["train"], tokens["validation"],
    )  # fmt: skip
    _write_atomically(folder / SUMMARY, lambda file: file.write(json.dumps(summary).encode()))
    return streams


def _parts(count: int, held_out: float, name: str) -> list[Part]:
    every = round(1 / held_out)
    if every < 2 or count < every:
        raise ValueError(
            f"data.held_out={held_out:g} of the {count} documents of {name} leaves none to train "
            "on or none to hold out"
        )
    numbers = np.arange(count)
    is_held_out = numbers % every == every - 1
    return [
        Part(split, start // DOCUMENTS_A_PART, own[start : start + DOCUMENTS_A_PART])
        for split, own in (("validation", numbers[is_held_out]), ("train", numbers[~is_held_out]))
        for start in range(0, len(own), DOCUMENTS_A_PART)
    ]


class PartWriter:
    """Tokenises documents and writes parts; travels to other processes."""

    def __init__(self, documents: Dataset, tokenise: DocumentTokenizer, folder: Path) -> None:
        self.documents, self.tokenise, self.folder = documents, tokenise, folder

    def __call__(self, part: Part) -> Part:
        """Writes a part's file, whole or not at all."""
        batches = self.documents.select(part.documents).iter(DOCUMENTS_AT_ONCE)
        ids = np.concatenate([self.tokenise(batch[TEXT]) for batch in batches])
        _write_atomically(self.folder / part.file, lambda file: np.save(file, ids))
        return part


def _written(writer: PartWriter, parts: list[Part], num_workers: int) -> Iterator[Part]:
    """Yields parts as they are done."""
    if num_workers == 1 or len(parts) < 2:
        yield from map(writer, parts)
        return
    # Not forked from this process, which has threads, but from one that has imported this alone.
    served = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if served else "spawn")
    if served:
        context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(min(num_workers, len(parts)), context, _one_thread) as pool:
        futures: list[Future[Part]] = [pool.submit(writer, part) for part in parts]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _one_thread() -> None:
    """In each worker: as many workers as cores are enough."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    partial = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
            partial = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the name without the content
        partial.replace(path)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise ValueError(
            f"{path} cannot be written: {error.strerror or error}. What was tokenised before is "
            "kept; the same command goes on from there"
        ) from error


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Holds the folder's lock; says so if another process does the work meanwhile."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that is tokenising %s", name)
        lock.acquire()
    try:
        for left_over in folder.glob("*.partial"):  # of a process that was killed
            left_over.unlink()
        yield
    finally:
        lock.release()
