"""Pre-training throughput against Hugging Face's Trainer, and the time that the data take.

    python scripts/benchmark_pretraining.py train --tokenizer FOLDER
    python scripts/benchmark_pretraining.py prepare --data FOLDER --config NAME --processes 2

``train``: the same new BERT, blocks, batch and precision for both; the Trainer with
DataCollatorForLanguageModeling, fused AdamW and fused attention. They take turns in one process
and ratios are of the same round, so that a machine that slows down slows both. The text is the
demo's, in the tokens of whatever tokenizer: its vocabulary decides what the head costs.

``prepare``: a corpus to packed tokens, ours against ``datasets.map`` (tokenise, then group into
blocks, as in transformers' run_mlm.py) with the same tokenizer and number of processes, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from aaa.data.corpus import TEXT, Corpus, Wikipedia
from aaa.data.packing import pack
from aaa.data.wordpiece import TokenizerSource
from aaa.experiments.configs import compose_config
from aaa.experiments.console import quiet_libraries
from aaa.experiments.prepare_corpus import PreparedCorpus, prepare_corpus
from aaa.experiments.pretraining import PretrainingPlan, make_pretraining_plan
from aaa.experiments.train_corpus import train_on_corpus
from aaa.training import callbacks
from aaa.training.callbacks import Speed


class TrainerSpeed(TrainerCallback):
    """Tokens per second as aaa.training.throughput counts them."""

    def __init__(self, tokens_a_step: int) -> None:
        self.tokens_a_step, self.ends = tokens_a_step, list[float]()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(callbacks.time.perf_counter())

    @property
    def tokens_per_second(self) -> float:
        counted = self.ends[Speed.WARM_UP_STEPS - 1 :]
        return self.tokens_a_step * (len(counted) - 1) / (counted[-1] - counted[0])


class PlainBlocks(Dataset):
    """Unmasked blocks, for the collator to mask."""

    def __init__(self, prepared: PreparedCorpus) -> None:
        self.blocks = prepared.train.blocks  # type: ignore[union-attr]

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        return {"input_ids": self.blocks.read([number])[0].tolist()}


def plan_for(options: argparse.Namespace, folder: Path) -> PretrainingPlan:
    overrides = [
        "model=bert_4x256", f"data.max_length={options.length}", f"run.output_dir={folder}",
        f"model.hidden_size={options.hidden_size}", f"model.layers={options.layers}",
        f"tokenizer.path={options.tokenizer}",
        f"training.max_steps={options.steps}", f"training.batch_size={options.batch_size}",
        f"training.precision={options.precision}", "training.evaluations=1", "run.progress=false",
        "training.spike=null", f"pattern={options.pattern}", "corpus.num_documents=3000",
        f"run.checkpoint_every={options.steps + 1}", "data.held_out=0.002",
    ]  # fmt: skip
    return make_pretraining_plan(compose_config(overrides, "pretrain"))


def ours(plan: PretrainingPlan, prepared: PreparedCorpus) -> float:
    plan.directory.mkdir(parents=True, exist_ok=True)
    return train_on_corpus(plan, prepared)["tokens_per_second"]


def hugging_face(plan: PretrainingPlan, prepared: PreparedCorpus, folder: Path) -> float:
    torch.manual_seed(plan.config.seed)
    settings = plan.settings
    speed = TrainerSpeed(settings.batch_size * plan.config.data.max_length)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=settings.max_steps or 0,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        bf16=settings.precision == "bf16-mixed",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = Trainer(
        model=plan.encoder.masked_lm(prepared.tokenizer).train(),
        args=arguments,
        train_dataset=PlainBlocks(prepared),
        data_collator=DataCollatorForLanguageModeling(prepared.tokenizer),
        callbacks=[speed],
    )
    trainer.train()
    return speed.tokens_per_second


def train(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = plan_for(options, folder)
        prepared = prepare_corpus(plan)
        ratios = []
        for number in range(options.rounds):
            theirs, own = hugging_face(plan, prepared, folder), ours(plan, prepared)
            ratios.append(own / theirs)
            print(f"round {number + 1}: trainer {theirs:.0f}, ours {own:.0f} tokens/s", flush=True)
    print(
        f"{options.layers} layers x {options.hidden_size}, vocabulary "
        f"{len(prepared.tokenizer)}, "
        f"{options.batch_size} x {options.length}, {options.precision}, pattern "
        f"{options.pattern}, {torch.get_num_threads()} threads, {options.clock} seconds: "
        "ours over Hugging Face's Trainer, "
        f"median {statistics.median(ratios):.2f} (of {', '.join(f'{r:.2f}' for r in ratios)})"
    )


def by_map(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, folder: Path, processes: int, length: int
) -> float:
    """Seconds of transformers' run_mlm.py for the same."""
    documents = corpus.load()

    def tokenise(batch: dict[str, list[str]]) -> Any:
        return tokenizer(batch[TEXT], return_special_tokens_mask=True)

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {key: [token for row in rows for token in row] for key, rows in batch.items()}
        total = len(joined["input_ids"]) // length * length
        return {
            key: [row[at : at + length] for at in range(0, total, length)]
            for key, row in joined.items()
        }

    def cache(name: str) -> str:
        return str(folder / f"{name}.arrow")

    workers = processes if processes > 1 else None
    begun = callbacks.time.perf_counter()
    split = documents.map(
        tokenise, batched=True, num_proc=workers, remove_columns=[TEXT],
        cache_file_name=cache("tokens"), load_from_cache_file=False,
    )  # fmt: skip
    split.map(
        group, batched=True, num_proc=workers, cache_file_name=cache("blocks"),
        load_from_cache_file=False,
    )  # fmt: skip
    return callbacks.time.perf_counter() - begun


def prepare(options: argparse.Namespace) -> None:
    corpus = Wikipedia(path=options.data, config=options.config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = TokenizerSource(
            path=options.tokenizer, vocab_size=8192, alphabet=300, num_documents=5000
        )
        tokenizer = source.get(corpus, folder)
        begun = callbacks.time.perf_counter()
        tokens = pack(corpus, tokenizer, 0.002, folder, options.processes)["train"]
        own = callbacks.time.perf_counter() - begun
        print(f"ours: {own:.1f} s for {len(tokens)} tokens", flush=True)
        theirs = by_map(corpus, tokenizer, folder, options.processes, options.length)
    print(
        f"datasets.map: {theirs:.1f} s; {options.processes} processes, {options.clock} seconds; "
        f"ours takes {own / theirs:.2f} of its time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.set_defaults(run=train)
    training.add_argument("--pattern", default="full")
    training.add_argument("--hidden-size", type=int, default=256)
    training.add_argument("--layers", type=int, default=4)
    training.add_argument("--tokenizer", required=True, help="hub id or folder")
    training.add_argument("--batch-size", type=int, default=16)
    training.add_argument("--steps", type=int, default=15)
    training.add_argument("--rounds", type=int, default=3)
    training.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    preparing = commands.add_parser("prepare")
    preparing.set_defaults(run=prepare)
    preparing.add_argument("--data", required=True, help="hub id or folder of Wikipedia's layout")
    preparing.add_argument("--config", required=True, help="dump and language")
    preparing.add_argument("--tokenizer", help="hub id or folder; without, one is trained")
    preparing.add_argument("--processes", type=int, default=2)
    for command in (training, preparing):
        command.add_argument("--length", type=int, default=128)
        command.add_argument(
            "--clock",
            default="wall",
            choices=("wall", "cpu"),
            help="cpu where others share the cores; of one process alone",
        )
    options = parser.parse_args()
    if options.clock == "cpu":  # of both contestants
        clock = SimpleNamespace(perf_counter=time.process_time)
        callbacks.time = clock  # type: ignore[assignment]
    quiet_libraries()
    datasets.disable_progress_bars()
    options.run(options)


if __name__ == "__main__":
    main()
