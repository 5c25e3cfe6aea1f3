"""A WordPiece tokenizer trained on a corpus, the same one whenever it is trained on the same."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tokenizers
from filelock import FileLock
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aaa.data.bert_tokens import SPECIAL_TOKENS, as_bert
from aaa.data.corpus import TEXT, Corpus
from aaa.data.tokenizer_identity import tokenizer_files
from aaa.fingerprint import hash_files, hash_json
from aaa.places import first_line, local_folder

log = logging.getLogger(__name__)

CONTINUING = "##"
LAST = "tokenizer_config.json"  # of its files to be put in place
FORMAT = 1  # to be raised when the code below comes to make other tokenizers of the same texts


@dataclass(frozen=True, kw_only=True)
class TokenizerSource:
    """Where the tokenizer of a new encoder comes from: a name or folder, or the corpus.

    Args:
        path: hub id or local folder of a tokenizer; None to train one on the corpus, which is
            what the others are for.
        vocab_size: tokens, special ones counted.
        lowercase: whether case and accents are dropped, as in BERT's uncased.
        alphabet: so many different characters are known, the most frequent; words with others
            become [UNK].
        num_documents: train on so many documents, evenly over the corpus, at the most.

    Raises:
        ValueError: naming the field that is out of range; from ``get``, if there is no such
            tokenizer, or it lacks a special token that masked language models need.
    """

    path: str | None = None
    vocab_size: int = 30_522
    lowercase: bool = True
    alphabet: int = 1000
    num_documents: int = 50_000

    def __post_init__(self) -> None:
        for name in ("alphabet", "num_documents"):
            if getattr(self, name) < 1:
                raise ValueError(f"tokenizer.{name} must be 1 or more, not {getattr(self, name)}")
        least = len(SPECIAL_TOKENS) + 2 * self.alphabet
        if self.vocab_size < least:
            raise ValueError(
                f"tokenizer.vocab_size must be {least} or more for the special tokens and "
                f"{self.alphabet} characters (tokenizer.alphabet), alone and inside a word; it is "
                f"{self.vocab_size}"
            )

    def fingerprint(self) -> str:
        """Identifies the tokenizer, together with the corpus."""
        if self.path is None:
            recipe = {key: value for key, value in asdict(self).items() if key != "path"}
            return hash_json([recipe, FORMAT, tokenizers.__version__])
        folder = local_folder(self.path, "tokenizer.path")
        if folder is None:
            return self.path
        return hash_files([*sorted(folder.glob("*.json")), *tokenizer_files(folder)])

    def get(
        self, corpus: Corpus, cache_dir: Path, streaming: bool = False
    ) -> PreTrainedTokenizerFast:
        """The tokenizer; one that is trained is kept in ``cache_dir``.

        Args:
            streaming: train it on the first documents, which need not be on this disk for that.
        """
        if self.path is not None:
            return _checked(_load(self.path), self.path)
        folder = (
            cache_dir
            / "tokenizers"
            / hash_json([self.fingerprint(), corpus.fingerprint(), streaming])
        )
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not (folder / LAST).exists():
                log.info("training a tokenizer of %d tokens on %s", self.vocab_size, corpus.name)
                _put(self._train(corpus, streaming), folder)
        return _load(str(folder))

    def _train(self, corpus: Corpus, streaming: bool) -> PreTrainedTokenizerFast:
        if streaming:
            chosen = corpus.stream().take(self.num_documents)
        else:
            documents = corpus.load()
            wanted = min(len(documents), self.num_documents)
            chosen = documents.select(np.linspace(0, len(documents) - 1, wanted).astype(int))
        texts = [[text or "" for text in batch[TEXT]] for batch in chosen.iter(1000)]
        return train_wordpiece(texts, self.vocab_size, self.lowercase, self.alphabet)


def _put(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves it so that a kill leaves no half of it that would be taken for the whole."""
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        tokenizer.save_pretrained(partial)
        for file in sorted(Path(partial).iterdir(), key=lambda file: file.name == LAST):
            file.replace(folder / file.name)


def train_wordpiece(
    batches: Iterable[list[str]], vocab_size: int, lowercase: bool, alphabet: int
) -> PreTrainedTokenizerFast:
    """A tokenizer like BERT's with a vocabulary learned from texts (given in batches, twice read).

    The trainer of ``tokenizers`` meets words in an order that differs from run to run, numbers
    the characters inside words by it, and breaks ties by those numbers. Here characters are
    numbered beforehand, so that the same texts make the same vocabulary.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    batches = list(batches)
    letters = _letters(batches, normalizer, alphabet)
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizer
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *letters, *(CONTINUING + c for c in letters)],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    trained.train_from_iterator(batches, trainer)
    return wordpiece(trained.get_vocab(), normalizer)


def wordpiece(
    token_ids: dict[str, int], normalizer: normalizers.Normalizer
) -> PreTrainedTokenizerFast:
    """BERT's tokenizer over a vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(token_ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUING)
    return as_bert(tokenizer)


def _letters(
    batches: Iterable[list[str]], normalizer: normalizers.Normalizer, alphabet: int
) -> list[str]:
    """The most frequent characters but white space, in their own order."""
    counts = np.zeros(0x110000, np.int64)
    for batch in batches:
        for text in batch:
            points = np.frombuffer(normalizer.normalize_str(text).encode("utf-32-le"), np.uint32)
            found, times = np.unique(points, return_counts=True)
            counts[found] += times
    frequent = (chr(point) for point in np.argsort(-counts, kind="stable") if counts[point])
    letters = [letter for letter in frequent if not letter.isspace()]
    return sorted(letters[:alphabet])


def _load(path: str) -> PreTrainedTokenizerFast:
    local_folder(path, "tokenizer.path")
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ConnectionError, ValueError) as error:
        raise ValueError(
            f"tokenizer.path: there is no readable tokenizer at {path!r}: {first_line(error)}"
        ) from error


def _checked(tokenizer: PreTrainedTokenizerFast, path: str) -> PreTrainedTokenizerFast:
    kinds = ("pad_token", "cls_token", "sep_token", "mask_token")
    lacking = [kind for kind in kinds if getattr(tokenizer, kind) is None]
    if lacking:
        raise ValueError(f"tokenizer.path: {path} has no {', '.join(lacking)}")
    return tokenizer
