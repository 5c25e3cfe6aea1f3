"""Time and memory of sparse attention against dense attention and Hugging Face's sparse models.

    python scripts/benchmark_attention.py --output FOLDER                   # everything
    python scripts/benchmark_attention.py --sections lengths --lengths 1024 4096 --output FOLDER
    python scripts/benchmark_attention.py --plot FOLDER/results.json        # pictures alone

Sections:
  lengths   one attention, batch 1, 12 heads of 64: forward, and forward with backward, over N; at
            a fixed sparsity of 0.97 and at fixed numbers of rows and columns (those of N = 4,096)
  short     the same where texts are short and more is open: what ``auto`` has to choose between
  layers    self-attention, encoder layer and training step against Longformer's and BigBird's

Times: the contestants take turns in one process; a figure is the median over the rounds, a ratio
the median of the rounds' ratios, so that a machine that slows down slows all of them. Memory: each
contestant in a process of its own, the peak of its resident memory (VmHWM) less what it held
before the call, its inputs among that; Linux only. What runs out of memory or takes longer than
``--patience`` is NaN.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from aaa.attention import EXECUTORS
from aaa.masks import SparseMask

HEADS, SIZE, RHO, REACH = 12, 64, 0.97, 2
FULL = "sdpa, no mask"
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
WINDOW, GLOBALS, BLOCK = 512, 2, 64  # Longformer's window in all; BigBird's blocks
NAN = float("nan")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def axis_tokens(num_tokens: int, rho: float) -> int:
    """How many rows, and as many columns, leave this share closed, with ``Local(REACH)``."""
    diagonals = (2 * REACH + 1) * num_tokens - REACH * (REACH + 1)
    return max(1, round(((1 - rho) * num_tokens**2 - diagonals) / (2 * num_tokens)))


def make_mask(num_tokens: int, count: int, learned: bool) -> SparseMask:
    """``count`` random rows and as many columns, and the diagonals up to ``REACH``."""
    order = torch.randperm(num_tokens)
    rows, columns = torch.zeros(2, 1, 1, num_tokens)
    rows[..., order[:count]] = 1
    columns[..., order[-count:]] = 1
    gates = (rows.requires_grad_(learned), columns.requires_grad_(learned))
    keep = torch.ones(1, num_tokens, dtype=torch.bool)
    return SparseMask(keep, *gates, torch.ones(1, 1, REACH + 1))


def attention_call(name: str, num_tokens: int, count: int, mode: str) -> Callable[[], Any]:
    """One attention: ``forward``, ``frozen`` (with backward) or ``learned`` (gates as well)."""
    torch.manual_seed(0)
    grad = mode != "forward"
    query, key, value = (
        torch.randn(1, num_tokens, HEADS, SIZE).transpose(1, 2).requires_grad_(grad)
        for _ in range(3)
    )
    gradient = torch.randn(1, num_tokens, HEADS, SIZE).transpose(1, 2)
    mask = make_mask(num_tokens, count, mode == "learned")

    def run() -> None:
        if name == FULL:
            output: Tensor = F.scaled_dot_product_attention(query, key, value)
        else:
            output, _ = EXECUTORS[name](query, key, value, mask, scaling=SIZE**-0.5)
        if grad:
            output.backward(gradient)

    return run


def layer_call(name: str, num_tokens: int, level: str) -> Callable[[], Any]:
    """``self-attention`` or ``layer`` forward, or a ``training step`` of a layer with AdamW."""
    model = layer_model(name).train(level == "training step")
    hidden = torch.randn(1, num_tokens, HEADS * SIZE)
    marks = torch.zeros(1, num_tokens, dtype=torch.long)
    marks[:, :GLOBALS] = 1
    keep = torch.ones(1, num_tokens, dtype=torch.long)
    arguments: dict[str, Any] = {"inputs_embeds": hidden, "attention_mask": keep}
    if name == "Longformer":
        arguments["global_attention_mask"] = marks
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    if level == "self-attention":
        return self_attention_call(model, name, arguments)

    def run() -> None:
        with torch.set_grad_enabled(level == "training step"):
            output = model(**arguments).last_hidden_state
        if level == "training step":
            output.square().mean().backward()
            optimiser.step()
            optimiser.zero_grad()

    return run


def self_attention_call(model: nn.Module, name: str, arguments: Any) -> Callable[[], Any]:
    """The self-attention alone, projections included, with what the model hands to it."""
    module = next(m for m in model.modules() if type(m).__name__.endswith("SelfAttention") or
                  type(m).__name__ == "BigBirdBlockSparseAttention")  # fmt: skip
    seen: list[Any] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    with torch.no_grad():
        model(**arguments)
    handle.remove()
    args, kwargs = seen[0]

    def run() -> None:
        with torch.no_grad():
            module(*args, **kwargs)

    return run


def layer_model(name: str) -> nn.Module:
    """An encoder of one layer of BERT's base size, random weights, without embeddings of words."""
    from transformers import (
        BertConfig,
        BertModel,
        BigBirdConfig,
        BigBirdModel,
        LongformerConfig,
        LongformerModel,
    )  # fmt: skip

    from aaa import Global, Local, sparsify

    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "num_hidden_layers": 1, "vocab_size": 8, "max_position_embeddings": 2**15,
        "hidden_size": HEADS * SIZE, "num_attention_heads": HEADS,
        "intermediate_size": 4 * HEADS * SIZE,
    }  # fmt: skip
    if name == "Longformer":
        return LongformerModel(
            LongformerConfig(attention_window=[WINDOW], **shape), add_pooling_layer=False
        )
    if name == "BigBird":
        config = BigBirdConfig(
            attention_type="block_sparse", block_size=BLOCK, num_random_blocks=3, **shape
        )
        return BigBirdModel(config, add_pooling_layer=False)
    bert = BertModel(BertConfig(**shape), add_pooling_layer=False)
    if name == "BERT, sdpa":
        return bert
    if name == "ours, as Longformer":
        return sparsify(bert, Local(WINDOW // 2) | Global(GLOBALS))
    # BigBird's blocks: the own one, the one before and the one after; the first and the last are
    # global, and three random ones a row, for which ours has as many global tokens more.
    assert name == "ours, as BigBird"
    return sparsify(bert, Local(3 * BLOCK // 2) | Global(2 * BLOCK))


def make_call(case: dict[str, Any]) -> Callable[[str], Callable[[], Any]]:
    if case["section"] == "layers":
        return lambda name: layer_call(name, case["tokens"], case["mode"])
    return lambda name: attention_call(name, case["tokens"], case["count"], case["mode"])


# ------------------------------------------------------------------ what a worker process does


def worker(task: dict[str, Any], answer: Connection) -> None:
    limit = int(task["memory_gb"] * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(task["threads"])
    make = make_call(task["case"])
    if task["kind"] == "memory":
        answer.send(extra_memory(make(task["name"])))
    else:
        clock = CLOCKS[task["clock"]]
        answer.send(times(task["names"], make, task["rounds"], task["patience"], clock))


def times(
    names: list[str],
    make: Callable[[str], Callable[[], Any]],
    rounds: int,
    patience: float,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, in turn; one that fails is NaN from there on."""
    calls = {name: make(name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names:
            if seconds[name] and seconds[name][-1] != seconds[name][-1]:
                seconds[name].append(NAN)
                continue
            try:
                start = clock()
                calls[name]()
                taken = clock() - start
            except (RuntimeError, MemoryError):  # out of memory is a RuntimeError to torch
                taken = NAN
            seconds[name].append(NAN if taken > patience else taken)
        if number == 0:  # the first round warms up
            for name in names:
                seconds[name] = [x for x in seconds[name] if x != x]
    return {name: (kept + [NAN] * rounds)[:rounds] for name, kept in seconds.items()}


def extra_memory(call: Callable[[], Any]) -> float:
    """Peak of the resident memory in a call less what was resident before, in MB."""

    def status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    torch.randn(64, 64) @ torch.randn(64, 64)  # what the first product sets up once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from now
    before = status("VmRSS")
    call()
    return (status("VmHWM") - before) / 1024


def in_process(task: dict[str, Any], patience: float) -> Any:
    """What a worker returns; None if it died or took too long.

    Workers are forks, so that they need not import anything; this process never computes, since a
    fork of one with threads at work would hang.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=worker, args=(task, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(patience) else None
    except EOFError:  # it died
        return None
    finally:
        process.kill()
        process.join()


# ------------------------------------------------------------------ what is measured


def cases(sections: list[str], lengths: list[int]) -> list[dict[str, Any]]:
    """What is measured of whom; the slow ones not where they would take minutes."""
    found: list[dict[str, Any]] = []

    def add(section: str, series: str, tokens: int, mode: str, names: list[str],
            count: int = 0, also_memory: tuple[str, ...] = ()) -> None:  # fmt: skip
        found.append({"section": section, "series": series, "tokens": tokens, "mode": mode,
                      "names": names, "count": count,
                      "memory": [*names, *also_memory]})  # fmt: skip

    if "lengths" in sections:
        for tokens in lengths:
            rivals = {"forward": [FULL, "gathered"], "frozen": [FULL, "gathered"],
                      "learned": [FULL, "gathered"]}  # fmt: skip
            if tokens <= 4096:
                rivals["forward"].append("sdpa")
                rivals["frozen"].append("sdpa")
            if tokens <= 1024:
                rivals["learned"].append("dense")
            for mode, names in rivals.items():
                late = ("dense",) if tokens <= 4096 and "dense" not in names else ()
                if tokens <= 16384 // (1 if mode == "forward" else 2):
                    add("lengths", "rho 0.97", tokens, mode, names,
                        axis_tokens(tokens, RHO), late)  # fmt: skip
            count = axis_tokens(4096, RHO)
            if 4 * count <= tokens:
                add("lengths", "fixed", tokens, "forward", ["gathered"], count)
    if "short" in sections:
        for tokens in (128, 256, 384, 512, 1024):
            for share in (0.01, 0.1, 0.4):
                for mode in ("forward", "frozen", "learned"):
                    names = [FULL, "auto", "gathered", "dense" if mode == "learned" else "sdpa"]
                    add("short", f"{share:.0%} of rows and of columns", tokens, mode, names,
                        max(1, int(tokens * share)))  # fmt: skip
    if "layers" in sections:
        names = ["BERT, sdpa", "Longformer", "ours, as Longformer", "BigBird", "ours, as BigBird"]
        for tokens in (t for t in lengths if t in (1024, 4096)):
            for mode in ("self-attention", "layer", "training step"):
                add("layers", "layers", tokens, mode, names)
    return found


def measure(case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    common = {"case": case, "threads": options.threads, "memory_gb": options.memory_gb,
              "clock": options.clock}  # fmt: skip
    rounds = options.rounds if case["tokens"] < 8192 else min(3, options.rounds)
    task = {"kind": "time", "names": case["names"], "rounds": rounds,
            "patience": options.patience, **common}  # fmt: skip
    done = in_process(task, options.patience * len(case["names"]) * (rounds + 1))
    seconds = done or {name: [NAN] * rounds for name in case["names"]}
    memory = {}
    told = case["section"] != "short" and case["mode"] != "self-attention"
    for name in case["memory"] if told else []:
        done = in_process({"kind": "memory", "name": name, **common}, options.patience)
        memory[name] = NAN if done is None else done
    return {**case, "seconds": seconds, "extra_mb": memory}


def median_ratio(top: list[float], bottom: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(top, bottom, strict=False))


def report(results: dict[str, Any]) -> str:
    lines = [json.dumps(results["about"])]
    for case in results["cases"]:
        lines.append(f"{case['section']} {case['series']} N={case['tokens']} {case['mode']}")
        base = case["names"][0]
        for name in case["memory"]:
            seconds = case["seconds"].get(name, [NAN])
            ratio = median_ratio(case["seconds"][base], seconds)
            memory = case["extra_mb"].get(name, NAN)
            lines.append(
                f"  {name:22s} {statistics.median(seconds) * 1e3:10.2f} ms"
                f"  {ratio:6.2f}x as fast as {base}  {memory:9.1f} MB"
            )
    return "\n".join(lines)


# ------------------------------------------------------------------ pictures


def plot(results: dict[str, Any], folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    modes = {"forward": "forward", "frozen": "forward and backward",
             "learned": "forward and backward, gates learned"}  # fmt: skip
    colors: dict[str, str] = {}
    for what, label in (("seconds", "time (ms)"), ("extra_mb", "peak memory of the call (MB)")):
        figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
        for axis, (mode, title) in zip(axes, modes.items(), strict=True):
            for key, (x, y) in curves(results, mode, what).items():
                style = "--" if key.endswith("(fixed)") else "-"
                color = colors.setdefault(key, f"C{len(colors)}")
                axis.plot(x, y, style, color=color, marker="o", markersize=3, label=key)
            axis.set(xscale="log", yscale="log", title=title, xlabel="tokens N")
            axis.set_xscale("log", base=2)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
        axes[0].set_ylabel(label)
        figure.savefig(folder / f"attention_{'time' if what == 'seconds' else 'memory'}.png",
                       dpi=130)  # fmt: skip
        plt.close(figure)


def curves(results: dict[str, Any], mode: str, what: str) -> dict[str, tuple[list, list]]:
    found: dict[str, tuple[list, list]] = {}
    for case in results["cases"]:
        if case["section"] != "lengths" or case["mode"] != mode:
            continue
        for name in case["memory"] if what == "extra_mb" else case["names"]:
            key = f"{name} (fixed)" if case["series"] == "fixed" else name
            value = case[what][name]
            value = statistics.median(value) * 1e3 if what == "seconds" else value
            x, y = found.setdefault(key, ([], []))
            x.append(case["tokens"])
            y.append(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sections", nargs="+", default=["lengths", "short", "layers"],
                        choices=("lengths", "short", "layers"))  # fmt: skip
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=CLOCKS,
                        help="cpu: of the process, for one thread on a busy machine")  # fmt: skip
    parser.add_argument("--patience", type=float, default=60, help="seconds a call may take")
    parser.add_argument("--memory-gb", type=float, default=16, help="a process may address")
    parser.add_argument("--output", type=Path, help="folder of results.json and the pictures")
    parser.add_argument("--plot", type=Path, help="a results.json to draw again")
    options = parser.parse_args()
    if options.plot:
        plot(json.loads(options.plot.read_text()), options.plot.parent)
        return
    if not options.output:
        parser.error("--output FOLDER says where results.json and the pictures go")
    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "about": {"torch": torch.__version__, "threads": options.threads, "clock": options.clock,
                  "machine": platform.processor() or platform.machine(),
                  "load": os.getloadavg()},
        "cases": [],
    }  # fmt: skip
    for case in track(cases(options.sections, options.lengths), description="measuring"):
        results["cases"].append(measure(case, options))
        (options.output / "results.json").write_text(json.dumps(results))
    print(report(results))
    plot(results, options.output)
    print(f"pictures and results.json are in {options.output}")


if __name__ == "__main__":
    main()
