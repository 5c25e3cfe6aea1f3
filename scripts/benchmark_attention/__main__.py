"""Time and memory of sparse attention against dense attention and Hugging Face's sparse models.

    python -m scripts.benchmark_attention --output FOLDER                   # everything
    python -m scripts.benchmark_attention --sections lengths --lengths 1024 4096 --output FOLDER
    python -m scripts.benchmark_attention --device cuda --output FOLDER     # bf16, to 65,536
    python -m scripts.benchmark_attention --device cuda --clock graph --output FOLDER
    python -m scripts.benchmark_attention --plot FOLDER/results.json        # pictures alone

Sections:
  lengths   one attention, batch 1, 12 heads of 64: forward, and forward with backward, over N; at
            a fixed sparsity of 0.97 and at fixed numbers of rows and columns (those of N = 4,096)
  short     the same where texts are short and more is open: what ``auto`` has to choose between
  patterns  one attention at 1,024 and 4,096 tokens under each pattern, learned ones as they end
  layers    self-attention, encoder layer and training step against Longformer's and BigBird's

Times: the contestants take turns in one process; a figure is the median over the rounds, a ratio
the median of the rounds' ratios, so that a machine that slows down slows all of them. Memory: on a
CPU each contestant in a process of its own, the peak of its resident memory (VmHWM) less what it
held before the call, its inputs among that (Linux only); on a GPU what was allocated. What runs
out of memory or takes longer than ``--patience`` is NaN. The roof of a GPU is the time that the
open cells' products, or queries, keys, values, outputs and their gradients read and written once,
take at ``--teraflops`` and ``--gigabytes``, whichever is longer; those of an H100 SXM unless told
otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from scripts.benchmark_attention.contestants import (
    FLASH,
    FULL,
    HEADS,
    LAYERS,
    PATTERNS,
    SIZE,
    Case,
    axis_tokens,
)
from scripts.benchmark_attention.pictures import plot, report
from scripts.benchmark_attention.worker import (
    CLOCKS,
    GRAPH,
    Conditions,
    measured_memory,
    measured_times,
)

SECTIONS = ("lengths", "short", "patterns", "layers")
RHO = 0.97
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
GPU_LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
HOLDS_CELLS = 4096  # up to here also executors that hold N x N cells
# Products a cell: two forward; with the five of a backward pass that computes them again, seven.
# Tensors of N x D that are read or written: q, k, v, o; and with the backward pass twelve.
PRODUCTS, TENSORS = {"forward": 2, "frozen": 7}, {"forward": 4, "frozen": 12}


def lengths_cases(lengths: Sequence[int], on_gpu: bool, as_graphs: bool) -> list[Case]:
    """What is measured of whom; the slow ones not where they would take minutes.

    Not as CUDA graphs what waits for the GPU or has a backward pass; nor ``gathered`` on a GPU.
    """
    found = []
    ours = (FLASH, "triton") if on_gpu else ("gathered",)
    for tokens in lengths:
        frozen = (FULL, *ours, *(("flex",) if on_gpu else ()))
        learned = (FULL, *ours)
        if tokens <= HOLDS_CELLS and not as_graphs:
            frozen = (*frozen, "sdpa")
        if tokens <= 1024:
            learned = (*learned, "dense")
        modes = {"forward": frozen} | ({} if as_graphs else {"frozen": frozen, "learned": learned})
        for mode, names in modes.items():
            late = ("dense",) if tokens <= HOLDS_CELLS and "dense" not in names else ()
            if on_gpu or tokens <= (16384 if mode == "forward" else 8192):
                count = axis_tokens(tokens, RHO)
                found.append(Case("lengths", f"rho {RHO}", tokens, mode, names, count, late))
        count = axis_tokens(4096, RHO)
        if 4 * count <= tokens:
            found.append(Case("lengths", "fixed", tokens, "forward", ours[-1:], count))
    return found


def short_cases() -> list[Case]:
    """Texts of 128 to 1,024 tokens with 1 to 40 % of the rows and of the columns open."""
    return [
        Case(
            "short", f"{share:.0%} of rows and of columns", tokens, mode,
            (FULL, "auto", "gathered", "dense" if mode == "learned" else "sdpa"),
            max(1, int(tokens * share)),
        )
        for tokens in (128, 256, 384, 512, 1024)
        for share in (0.01, 0.1, 0.4)
        for mode in ("forward", "frozen", "learned")
    ]  # fmt: skip


def pattern_cases(lengths: Sequence[int]) -> list[Case]:
    """What each pattern saves under ``auto``."""
    return [
        Case("patterns", pattern, tokens, mode, (FULL, "auto"))
        for tokens in lengths
        if tokens in (1024, 4096)
        for pattern in PATTERNS
        for mode in ("forward", "frozen")
    ]


def layer_cases(lengths: Sequence[int], on_gpu: bool) -> list[Case]:
    """A layer of BERT's base size against Longformer's and BigBird's."""
    wanted = (1024, 4096, 16384) if on_gpu else (1024, 4096)
    return [
        Case("layers", "layers", tokens, mode, LAYERS)
        for tokens in lengths
        if tokens in wanted
        for mode in ("self-attention", "layer", "training step")
    ]


def cases(options: argparse.Namespace) -> list[Case]:
    """All that is asked for, in the order of the sections."""
    on_gpu = options.device == "cuda"
    found = {
        "lengths": lengths_cases(options.lengths, on_gpu, options.clock == GRAPH),
        "short": short_cases(),
        "patterns": pattern_cases(options.lengths),
        "layers": layer_cases(options.lengths, on_gpu),
    }
    return [case for section in found if section in options.sections for case in found[section]]


def roof_seconds(case: Case, options: argparse.Namespace) -> float | None:
    """The least time that the card allows; None on a CPU and for what is not one attention."""
    if options.device == "cpu" or case.mode not in PRODUCTS:
        return None
    cells_BH = case.mask().kept_cells()
    operations = PRODUCTS[case.mode] * 2 * SIZE * float(cells_BH.mean()) * HEADS
    numbers = TENSORS[case.mode] * HEADS * case.tokens * SIZE
    size = getattr(torch, options.dtype).itemsize
    return max(operations / options.teraflops / 1e12, numbers * size / options.gigabytes / 1e9)


def measure(case: Case, options: argparse.Namespace, under: Conditions) -> dict[str, Any]:
    rounds = options.rounds if case.tokens < 8192 else min(3, options.rounds)
    told = case.section != "short" and case.mode != "self-attention"
    names = (*case.names, *case.only_memory) if told else ()
    return {
        **case.to_json(),
        "rho": None if case.section == "layers" else float(case.mask().sparsity().mean()),
        "seconds": measured_times(case, rounds, under),
        "extra_mb": {name: measured_memory(case, name, under) for name in names},
        "roof_seconds": roof_seconds(case, options),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sections", nargs="+", default=SECTIONS, choices=SECTIONS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"),
                        help="float32 on a CPU, bfloat16 on a GPU unless told")  # fmt: skip
    parser.add_argument("--lengths", nargs="+", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=(*CLOCKS, GRAPH),
                        help="cpu: of the process, for one thread on a busy machine; "
                             "graph: of CUDA graphs")  # fmt: skip
    parser.add_argument("--patience", type=float, default=60, help="seconds a call may take")
    parser.add_argument("--memory-gb", type=float, default=16, help="a process may address")
    parser.add_argument("--teraflops", type=float, default=989, help="of the card, in the dtype")
    parser.add_argument("--gigabytes", type=float, default=3350, help="of its memory, a second")
    parser.add_argument("--output", type=Path, help="folder of results.json and the pictures")
    parser.add_argument("--plot", type=Path, help="a results.json to draw again")
    options = parser.parse_args()
    if not options.output and not options.plot:
        parser.error("--output FOLDER says where results.json and the pictures go")
    on_gpu = options.device == "cuda"
    if options.clock == GRAPH and not on_gpu:
        parser.error("--clock graph is a GPU's: use --device cuda, or --clock wall or cpu")
    options.dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    options.lengths = options.lengths or (GPU_LENGTHS if on_gpu else LENGTHS)
    return options


def main() -> None:
    options = parse()
    if options.plot:
        plot(json.loads(options.plot.read_text()), options.plot.parent)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # workers are forks; they set their own
    under = Conditions(
        options.device, options.dtype, options.threads, options.memory_gb, options.clock,
        options.patience,
    )  # fmt: skip
    results: dict[str, Any] = {
        "about": {"torch": torch.__version__, **asdict(under), "load": os.getloadavg(),
                  "machine": platform.processor() or platform.machine()},
        "cases": [],
    }  # fmt: skip
    for case in track(cases(options), description="measuring"):
        results["cases"].append(measure(case, options, under))
        (options.output / "results.json").write_text(json.dumps(results))
    print(report(results))
    plot(results, options.output)
    print(f"pictures and results.json are in {options.output}")


if __name__ == "__main__":
    main()
