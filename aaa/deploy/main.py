"""``aaa export`` and ``aaa bench``: what is wanted, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import PreTrainedTokenizerFast

from aaa.deploy.bench import Batch, Cost, Costs, bench
from aaa.deploy.onnx import MODEL_FILE, check_installed, export_onnx
from aaa.experiments.arguments import (
    model_folder,
    read_options,
    run_directory,
    saved_tokenizer,
    whole_number,
)
from aaa.experiments.console import set_up_logging
from aaa.experiments.plan import make_plan
from aaa.models.positions import longest_input
from aaa.saved import load_dense, load_sparse
from aaa.sparse import sparse_layers

EXPORT_HELP = """\
aaa export: a trained sparse model as one ONNX file

  aaa export run=RUN               RUN/onnx/model.onnx, with its tokenizer beside it

RUN is a run's id under outputs/runs, or its directory, or a saved model's folder.

  longest=N      of the texts it is to serve, in tokens (as many as the encoder has positions for)
  output=FOLDER  where to

Batch size and length stay free. Attention stays sparse: no N x N scores. The file is run by
onnxruntime and compared with PyTorch at several lengths, with padding, before it is kept.
"""
BENCH_HELP = """\
aaa bench: what a trained model's own masks save, layer by layer, against full attention by SDPA

  aaa bench run=RUN                on texts of the run's development set
  aaa bench run=RUN text="..."     on a text; a pair with text_pair="..."
  aaa bench run=RUN tokens=N       on texts of N tokens, made of those by repeating them

RUN is a run's id under outputs/runs, or its directory; with a text also a saved model's folder.

  texts=N        how many of the development texts, spread over all lengths (64)
  batch=N        texts a batch (16)
  rounds=N       times that each call is timed; the median counts (5)
  executor=NAME  other than auto
  device=NAME    cpu or cuda (cuda where there is one)
"""
MIB = 2**20


def export_main(arguments: list[str]) -> int:
    """Exports what the arguments name, and says what was checked.

    Raises:
        ValueError: for arguments that make no sense, or a model that cannot be exported.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        print(EXPORT_HELP, end="")
        return 0
    options = read_options("export", arguments, ("run", "longest", "output"))
    check_installed()
    directory, folder = _place(options, "export")
    tokenizer = saved_tokenizer(folder)
    console = Console(stderr=True, highlight=False)
    most = longest_input(load_dense(folder), tokenizer)
    longest = whole_number(options, "longest", most, least=1, most=most)
    output = Path(options.get("output", directory / "onnx")).expanduser()
    with console.status("exporting, then checking in onnxruntime (a minute or so)"):
        checks = export_onnx(folder, output / MODEL_FILE, longest)
    tokenizer.save_pretrained(output)
    table = Table(title="onnxruntime against PyTorch", box=box.SIMPLE)
    for name in ("texts", "tokens", "difference / largest output"):
        table.add_column(name, justify="right")
    for check in checks:
        table.add_row(str(check.batch), str(check.tokens), f"{check.difference:.1e}")
    Console(highlight=False).print(table)
    print(f"written: {output / MODEL_FILE}")
    print(f"next: aaa bench run={options['run']}")
    return 0


def bench_main(arguments: list[str]) -> int:
    """Measures what the arguments name, and prints the table.

    Raises:
        ValueError: for arguments that make no sense.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        print(BENCH_HELP, end="")
        return 0
    keys = ("run", "text", "text_pair", "tokens", "texts", "batch", "rounds", "executor", "device")
    options = read_options("bench", arguments, keys)
    set_up_logging()
    directory, folder = _place(options, "bench")
    rounds = whole_number(options, "rounds", 5, least=1, most=1000)
    device = _device(options)
    tokenizer = saved_tokenizer(folder)
    sparse = load_sparse(folder, executor=options.get("executor", "auto")).to(device)
    if any("heads" in layer.pattern.wants for layer in sparse_layers(sparse)):
        raise ValueError("this run's pattern reads parses, which aaa bench does not make")
    dense = load_dense(folder).to(device)
    longest = longest_input(dense, tokenizer)
    batches = _batches(options, directory, tokenizer, longest)
    batches = [{name: x.to(device) for name, x in batch.items()} for batch in batches]
    console = Console(stderr=True, highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=len(batches))
        for so_far in bench(sparse, dense, batches, rounds):
            costs = so_far
            progress.advance(task)
    Console(highlight=False).print(_table(costs, batches, directory.name, device))
    tokens = max(batch["input_ids"].shape[1] for batch in batches)
    if costs.whole.ratio("seconds") < 1 and tokens < longest:
        print(f"next: aaa bench run={options['run']} tokens={longest}   (longer texts save more)")
    else:
        print(f"next: aaa export run={options['run']}")
    return 0


def _place(options: dict[str, str], command: str) -> tuple[Path, Path]:
    """The run's directory and its model's folder."""
    if "run" not in options:
        raise ValueError(f"aaa {command} takes run=; see aaa {command} --help")
    directory = run_directory(options["run"])
    return directory, model_folder(directory)


def _device(options: dict[str, str]) -> torch.device:
    name = options.get("device", "cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device= is cpu or cuda, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but this machine has no GPU that torch can use")
    return torch.device(name)


def _batches(
    options: dict[str, str], directory: Path, tokenizer: PreTrainedTokenizerFast, longest: int
) -> list[Batch]:
    """Batches of like lengths, the shortest texts first."""
    size = whole_number(options, "batch", 16, least=1, most=4096)
    texts = _texts(options, directory)
    encoded = [dict(tokenizer(*text, truncation=True, max_length=longest)) for text in texts]
    if "tokens" in options:
        tokens = whole_number(options, "tokens", 0, least=2, most=longest)
        encoded = [_of_length(row, tokens) for row in encoded]
    encoded.sort(key=lambda row: len(row["input_ids"]))
    return [
        dict(tokenizer.pad(encoded[first : first + size], return_tensors="pt"))
        for first in range(0, len(encoded), size)
    ]


def _texts(options: dict[str, str], directory: Path) -> list[tuple[str, ...]]:
    """The text that is given, or texts of the run's development set."""
    if "text" in options:
        return [tuple(options[key] for key in ("text", "text_pair") if key in options)]
    if "text_pair" in options:
        raise ValueError("text_pair= goes with text=")
    config = directory / "config.yaml"
    if not config.is_file():
        raise ValueError(f"{directory} is no run's directory, so it has no texts: give text=")
    number = whole_number(options, "texts", 64, least=1, most=1_000_000)
    task = make_plan(OmegaConf.load(config)).task  # type: ignore[arg-type]
    split = task.load()["validation"]
    rows = list(zip(*(split[column] for column in task.columns), strict=True))
    # By the number of letters, which is as good as that of tokens to have all lengths.
    rows.sort(key=lambda row: sum(map(len, row)))
    step = max(1, len(rows) // number)
    return rows[step // 2 :: step][:number]


def _of_length(row: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The text's tokens over and over, its first one once."""
    repeated = {}
    for name, values in row.items():
        first, rest = values[:1], values[1:] or values
        repeated[name] = (first + rest * (tokens // len(rest) + 1))[:tokens]
    return repeated


def _table(costs: Costs, batches: Sequence[Batch], name: str, device: torch.device) -> Table:
    lengths = torch.cat([batch["attention_mask"].sum(-1) for batch in batches])
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} thread(s)"
    table = Table(
        title=f"{name}: {len(lengths)} text(s) of {lengths.min()} to {lengths.max()} tokens in "
        f"{len(batches)} batch(es), {where}{threads}",
        caption="layers: their attention alone, masks made included; memory: the peak of a batch",
        box=box.SIMPLE,
        padding=0,
    )
    table.add_column("", no_wrap=True)
    for column in ("ρ", "SDPA ms", "sparse ms", "faster", "SDPA MiB", "sparse MiB", "less"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, (layer, rho) in enumerate(zip(costs.layers, costs.sparsity, strict=True)):
        table.add_row(f"layer {number}", f"{rho:.3f}", *_cells(layer))
    table.add_section()
    table.add_row("all layers", _mean(costs.sparsity), *_cells(_sum(costs.layers)))
    table.add_row("model", "", *_cells(costs.whole))
    return table


def _cells(cost: Cost) -> list[str]:
    """Times, memory and their ratios, those of SDPA over those of the sparse form."""
    shown = []
    for name, unit in (("seconds", 1e-3), ("peak_bytes", MIB)):
        values = getattr(cost, name)
        shown += [f"{values[kind] / unit:.2f}" for kind in ("dense", "sparse")]
        shown.append(f"{cost.ratio(name):.2f}×")
    return shown


def _sum(layers: Sequence[Cost]) -> Cost:
    """Times add up; memory is freed between layers, so the worst of them counts."""
    total = Cost()
    for layer in layers:
        for kind in ("dense", "sparse"):
            total.seconds[kind] += layer.seconds[kind]
            total.peak_bytes[kind] = max(total.peak_bytes[kind], layer.peak_bytes[kind])
    return total


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}"
