"""From words to the tokens that an encoder sees."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from aaa.data.conllu import Word
from aaa.data.syntax import CONTINUES, token_heads
from aaa.patterns import LayerInput, Syntax
from aaa.patterns import syntax as patterns_syntax
from aaa.patterns.base import TextInput

PIECES = ["[UNK]", "[CLS]", "[SEP]", "un", "##help", "##ful", "the", "cook", "slept"]


def word_pieces() -> PreTrainedTokenizerFast:
    backend = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def heads(*texts: tuple[str, list[Word]], max_length: int | None = None) -> list[int]:
    rows = word_pieces()(
        *([text] for text, _ in texts), truncation=max_length is not None, max_length=max_length
    )
    (tokens,) = rows.encodings
    return token_heads(tokens.offsets, tokens.sequence_ids, [words for _, words in texts])


THE_COOK: tuple[str, list[Word]] = (
    "The unhelpful  cook slept",
    [(0, 3, 2), (4, 13, 2), (15, 19, 3), (20, 25, 3)],
)


def test_word_pieces_and_special_tokens() -> None:
    # [CLS] the un ##help ##ful cook slept [SEP]
    assert heads(THE_COOK) == [0, 5, 5, -2, -2, 6, 0, 0]


def test_pairs_hang_from_the_same_root() -> None:
    other: tuple[str, list[Word]] = ("cook slept", [(0, 4, 1), (5, 10, 1)])
    assert heads(THE_COOK, other) == [0, 5, 5, -2, -2, 6, 0, 0, 9, 0, 0]


def test_several_sentences_hang_from_the_same_root() -> None:
    text: tuple[str, list[Word]] = (
        "cook slept the cook",
        [(0, 4, 1), (5, 10, 1), (11, 14, 3), (15, 19, 3)],
    )
    assert heads(text) == [0, 2, 0, 4, 0, 0]


def test_what_a_cut_word_heads_hangs_from_the_words_own_head() -> None:
    # [CLS] the un ##help [SEP]: "cook" is cut off, and so is "slept" above it
    assert heads(THE_COOK, max_length=5) == [0, 0, 0, -2, 0]
    # [CLS] the cook [SEP]: "slept" is cut off, which hangs from "the" or is a root
    for slept, expected in ((0, [0, 0, 1, 0]), (2, [0, 0, 0, 0])):
        words = [(0, 3, 0), (4, 8, 2), (9, 14, slept)]
        assert heads(("the cook slept", words), max_length=4) == expected


def test_a_token_that_spans_words_belongs_to_the_first() -> None:
    # the words "do" and "n't" against the tokens don, ' and t
    assert heads(("don't", [(0, 2, 0), (2, 5, 0)])) == [0, 0, 1, -2, 0]


def test_tokens_without_a_word_hang_from_the_root() -> None:
    assert heads(("the cook slept", [(0, 3, 1), (9, 14, 1)])) == [0, 3, 0, 0, 0]


def test_without_special_tokens_roots_are_roots() -> None:
    words: list[Word] = [(0, 3, 1), (4, 8, 1)]
    assert token_heads([(0, 3), (4, 6), (6, 8)], [0, 0, 0], [words]) == [1, 1, -2]


def test_white_space_at_the_edge_of_a_token() -> None:
    words: list[Word] = [(0, 3, 1), (4, 8, 1)]  # byte-level tokens may begin with the space
    assert token_heads([(0, 3), (3, 8)], [0, 0], [words]) == [1, 1]


def test_the_pattern_reads_what_is_written_here() -> None:
    assert CONTINUES == patterns_syntax.CONTINUES
    heads_BN = torch.tensor([heads(THE_COOK)])
    text = TextInput(heads_BN=heads_BN)
    opened = Syntax(hops=1)(LayerInput(torch.ones(1, 8, dtype=torch.bool), text=text)).dense()
    # [CLS] the un ##help ##ful cook slept [SEP]: what "cook" sees
    assert opened[0, 0, 5].tolist() == [0, 1, 1, 1, 1, 1, 1, 0]
