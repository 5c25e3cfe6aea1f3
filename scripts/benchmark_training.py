"""Training throughput: ours against Hugging Face's Trainer, and learned against full attention.

    python scripts/benchmark_training.py --data FOLDER --model FOLDER --task mrpc --rounds 3

Same weights, data, batch size and precision for all; Hugging Face's Trainer at its best setting
(dynamic padding, batches of like lengths, fused AdamW, fused attention). The contestants take
turns in one process and the printed ratios are of examples per second in the same round, so that
a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from aaa.experiments.configs import compose_config
from aaa.experiments.console import quiet_libraries
from aaa.experiments.plan import Plan, make_plan
from aaa.experiments.prepare import Prepared, prepare
from aaa.experiments.train import train
from aaa.training.callbacks import Speed

CONTESTANTS = ("trainer", "full", "aaa")


class TrainerSpeed(TrainerCallback):
    """Examples per second as aaa.training.callbacks.Speed counts them."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.ends = batch_size, list[float]()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    @property
    def examples_per_second(self) -> float:
        counted = self.ends[Speed.WARM_UP_STEPS - 1 :]
        return self.batch_size * (len(counted) - 1) / (counted[-1] - counted[0])


def plan_for(pattern: str, options: argparse.Namespace, folder: Path) -> Plan:
    overrides = [
        "scale=small", f"pattern={pattern}", f"task={options.task}", f"data.path={options.data}",
        f"model.path={options.model}", f"training.max_steps={options.steps}",
        f"training.batch_size={options.batch_size}", f"training.precision={options.precision}",
        "training.evaluations=1", "run.progress=false", f"run.output_dir={folder}",
        f"run.checkpoint_every={options.steps + 1}",
    ]  # fmt: skip
    return make_plan(compose_config(overrides))


def ours(plan: Plan, prepared: Prepared) -> float:
    plan.directory.mkdir(parents=True, exist_ok=True)
    return train(plan, prepared)["examples_per_second"]


def hugging_face(plan: Plan, prepared: Prepared, folder: Path) -> float:
    torch.manual_seed(plan.config.seed)
    speed = TrainerSpeed(plan.settings.batch_size)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=plan.settings.max_steps or 0,
        per_device_train_batch_size=plan.settings.batch_size,
        learning_rate=plan.settings.learning_rate,
        bf16=plan.settings.precision == "bf16-mixed",
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = Trainer(
        model=plan.encoder.classifier(plan.task.num_labels).train(),
        args=arguments,
        train_dataset=prepared.splits["train"],
        data_collator=DataCollatorWithPadding(prepared.tokenizer),
        callbacks=[speed],
    )
    trainer.train()
    return speed.examples_per_second


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", required=True, help="hub id or folder of GLUE's layout")
    parser.add_argument("--model", required=True, help="hub id or folder of an encoder")
    parser.add_argument("--task", default="mrpc")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    options = parser.parse_args()
    quiet_libraries()
    speeds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full, learned = plan_for("full", options, folder), plan_for("aaa", options, folder)
        full_data, learned_data = prepare(full), prepare(learned)
        for number in range(options.rounds):
            speeds["trainer"].append(hugging_face(full, full_data, folder))
            speeds["full"].append(ours(full, full_data))
            speeds["aaa"].append(ours(learned, learned_data))
            print(
                f"round {number + 1}: "
                + ", ".join(f"{k} {v[-1]:.1f}/s" for k, v in speeds.items())
            )
    print(
        f"{options.task}, batch {options.batch_size}, {options.precision}, "
        f"{torch.get_num_threads()} threads"
    )
    for label, top, bottom in (
        ("throughput of full, ours over Hugging Face's Trainer", "full", "trainer"),
        ("step time of aaa over full", "full", "aaa"),
    ):
        ratios = [a / b for a, b in zip(speeds[top], speeds[bottom], strict=True)]
        rounds = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{label}: median {statistics.median(ratios):.3f} (of {rounds})")


if __name__ == "__main__":
    main()
