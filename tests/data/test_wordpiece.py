"""Trained tokenizers: the same in every process, and BERT's in behaviour."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from aaa.data.demo.corpus import DemoCorpus
from aaa.data.wordpiece import TokenizerSource, train_wordpiece
from tests.needs import VOCABULARY_FILE, bert_uncased


def test_the_same_texts_make_the_same_vocabulary() -> None:
    """``tokenizers`` alone makes others each time: it goes through randomly hashed maps."""
    texts = list(DemoCorpus(num_documents=300).load()["text"])
    made = [train_wordpiece([texts], 200, True, 40).get_vocab() for _ in range(4)]
    assert all(vocabulary == made[0] for vocabulary in made)
    raw = []
    for _ in range(4):
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=200, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        raw.append(tokenizer.get_vocab())
    assert any(vocabulary != raw[0] for vocabulary in raw)  # else our own numbering may go


def test_frequent_words_are_one_token_and_characters_beyond_the_alphabet_unknown() -> None:
    texts = ["the cat sat on the mat \u00e4", "the cat ran"] * 50 + ["\u4e2d"]
    tokenizer = train_wordpiece([texts], 60, True, 10)
    assert tokenizer.tokenize("The CAT") == ["the", "cat"]
    assert tokenizer.tokenize("\u4e2d") == ["[UNK]"]
    encoded = tokenizer("the cat", "sat")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens[0] == "[CLS]"
    assert tokens.count("[SEP]") == 2
    assert encoded["token_type_ids"][-1] == 1


def test_it_is_trained_once_and_kept(tmp_path: Path) -> None:
    source = TokenizerSource(vocab_size=150, alphabet=40)
    corpus = DemoCorpus(num_documents=100)
    first = source.get(corpus, tmp_path)
    [folder] = (tmp_path / "tokenizers").iterdir()
    written = (folder / "tokenizer.json").stat().st_mtime_ns
    assert source.get(corpus, tmp_path).get_vocab() == first.get_vocab()
    assert (folder / "tokenizer.json").stat().st_mtime_ns == written
    source.get(corpus, tmp_path, streaming=True)
    assert len(list((tmp_path / "tokenizers").iterdir())) == 2


@pytest.mark.skipif(not VOCABULARY_FILE.exists(), reason="needs BERT's vocabulary")
def test_a_tokenizer_by_folder(tmp_path: Path) -> None:
    bert_uncased().save_pretrained(tmp_path / "bert")
    source = TokenizerSource(path=str(tmp_path / "bert"))
    loaded = source.get(DemoCorpus(num_documents=10), tmp_path)
    assert len(loaded) == 30_522
    assert loaded.tokenize("unaffable") == ["una", "##ffa", "##ble"]
    assert source.fingerprint() != TokenizerSource().fingerprint()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 100, "alphabet": 60}, "vocab_size must be 125 or more"),
        ({"alphabet": 0}, "alphabet must be 1 or more"),
        ({"num_documents": 0}, "num_documents must be 1 or more"),
    ],
)
def test_sizes_out_of_range(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenizerSource(**fields)  # type: ignore[arg-type]


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"tokenizer\.path: there is no readable tokenizer"):
        TokenizerSource(path=str(tmp_path / "empty")).get(DemoCorpus(num_documents=5), tmp_path)


@pytest.mark.parametrize("kind", ["vocab.txt", "merges.txt", "spiece.model"])
def test_an_older_folder_is_known_by_its_vocabulary(kind: str, tmp_path: Path) -> None:
    """It has no tokenizer.json, which would say everything."""
    (tmp_path / "tokenizer_config.json").write_text("{}")
    found = []
    for words in ("the\nof\n", "of\nthe\n"):
        (tmp_path / kind).write_text(words)
        found.append(TokenizerSource(path=str(tmp_path)).fingerprint())
    assert found[0] != found[1]
    (tmp_path / "tokenizer.json").write_text("{}")
    whole = TokenizerSource(path=str(tmp_path)).fingerprint()
    (tmp_path / kind).write_text("else\n")
    assert TokenizerSource(path=str(tmp_path)).fingerprint() == whole
