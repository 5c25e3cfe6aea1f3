"""rho (Eq. 9) of the paper's fixed patterns on GLUE's development sets, beside its Table 4.

    python scripts/measure_fixed_sparsity.py --data FOLDER --tokenizer FOLDER

rho of a fixed pattern follows from the lengths of the texts in tokens alone, so this checks masks,
lengths and the reading of the random pattern without any training. ``--tokenizer`` is a hub id, a
model's folder, or a WordPiece vocab.txt (with ``--cased`` for a cased one).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerBase

from aaa.data.encode import encode
from aaa.experiments.configs import compose_config
from aaa.objective import sparsity_of_lengths

# Table 4 of the paper, in percent.
TASKS = ("mnli", "qqp", "qnli", "sst2", "cola", "stsb", "mrpc", "rte")
PAPER = {
    "local2_global2": (76, 70, 82, 64, 34, 70, 83, 84),
    "local3_global1": (76, 70, 82, 63, 34, 70, 83, 84),
    "local2_global1_random1": (80, 76, 85, 70, 45, 75, 86, 87),
    "local1_global1_random2": (85, 81, 88, 77, 57, 81, 89, 89),
}
NUM_LAYERS = 12


def tokenizer_from(place: str, cased: bool) -> PreTrainedTokenizerBase:
    if Path(place).is_file():
        tokenizer = BertTokenizerFast(vocab=place, do_lower_case=not cased)
        tokenizer.model_max_length = 512
        return tokenizer
    return AutoTokenizer.from_pretrained(place)


def lengths_of(name: str, data: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    # Only the development set is read, also where a folder holds no other.
    splits = "+task.splits={train:validation,validation:validation}"
    if name == "mnli":
        splits = "+task.splits={train:validation_mismatched,validation:validation_mismatched}"
    task = instantiate(compose_config([f"task={name}", f"data.path={data}", splits]).task)
    split = task.load()["validation"]
    return encode(split, tokenizer, task.columns, 128, task.fingerprint())["length"][:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="nyu-mll/glue", help="hub id or folder of GLUE's layout")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--cased", action="store_true", help="a vocab.txt is of a cased model")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    options = parser.parse_args()
    tokenizer = tokenizer_from(options.tokenizer, options.cased)
    table = Table(title="ρ in percent: ours (the paper's, difference)")
    for head in ("pattern", *options.tasks):
        table.add_column(head, justify="right" if head in options.tasks else "left")
    lengths = {name: lengths_of(name, options.data, tokenizer) for name in options.tasks}
    worst = 0.0
    for pattern, figures in PAPER.items():
        paper = dict(zip(TASKS, figures, strict=True))
        rule = instantiate(compose_config([f"pattern={pattern}"]).pattern)
        cells = []
        for name in options.tasks:
            ours = 100 * sparsity_of_lengths(rule, lengths[name], NUM_LAYERS)
            worst = max(worst, abs(ours - paper[name]))
            cells.append(f"{ours:.1f} ({paper[name]}, {ours - paper[name]:+.1f})")
        table.add_row(pattern, *cells)
    Console(width=130).print(table)
    print(f"largest difference: {worst:.2f} points")


if __name__ == "__main__":
    main()
