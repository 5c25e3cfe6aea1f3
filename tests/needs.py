"""What some patterns of conf/pattern cannot run without, small, for runs of the tiny encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers.normalizers import BertNormalizer
from transformers import PreTrainedTokenizerFast

from aaa.data.demo import DemoTask
from aaa.data.wordpiece import wordpiece
from tests.conllu_files import write_trees


def overrides_for(pattern: str, folder: Path) -> list[str]:
    """Overrides that give a pattern what it needs; files for it are written into ``folder``."""
    if pattern == "diagonal_fixed_global1":
        return [f"pattern.source={diagonals(folder)}"]
    if pattern == "syntax":
        return [f"data.parses=conllu:{demo_parses(folder)}"]
    return []


def demo_parses(folder: Path, num_texts: int = 250) -> Path:
    """Trees, though no real ones, for the first texts of the demo's pair tasks."""
    texts: list[str] = []
    for kind in ("similarity", "paraphrase"):
        task = DemoTask(kind=kind, num_train=num_texts - 1, num_validation=1)
        for split in task.load().values():
            texts += [text for column in task.columns for text in split[column]]
    return write_trees(folder / "demo.conllu", texts)


def diagonals(folder: Path) -> Path:
    """Weights with a set of diagonals for each of the tiny encoder's three layers."""
    name = "encoder.layer.{}.attention.self.sparse.pattern.patterns.0.distance_weights_HK"
    logits = {name.format(layer): torch.full((1, 8), -1.0) for layer in range(3)}
    for layer, logits_HK in enumerate(logits.values()):
        logits_HK[:, [layer, 2 * layer + 1]] = 1.0
    save_file(logits, str(folder / "diagonals.safetensors"))
    return folder / "diagonals.safetensors"


VOCABULARY_FILE = Path(__file__).parents[2] / "shared/data/vocab/bert-base-uncased-vocab.txt"


def bert_uncased() -> PreTrainedTokenizerFast:
    """BERT's own tokenizer, from its vocabulary."""
    words = VOCABULARY_FILE.read_text().splitlines()
    return wordpiece({word: i for i, word in enumerate(words)}, BertNormalizer(lowercase=True))
