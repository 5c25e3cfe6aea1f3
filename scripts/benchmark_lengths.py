"""Time and peak memory of a training step on long texts, over their length.

    python scripts/benchmark_lengths.py --lengths 1000 2000 4000 --windows 16 512 full --batch 1

Long Range Arena's byte encoder (4 layers, 256 wide) under Local_w with a global classification
token, and under full attention: forward, backward and optimiser step on random bytes. Each figure
is taken in a fresh process with one thread. On a CPU seconds are those that the process computed,
so that what else runs there counts little; memory is what the steps add to what the process held
before them (resident on a CPU, allocated on a GPU). The exponent is the slope of log time, or
memory, over log length, by least squares over all lengths.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FULL = "full"
QUANTITIES = {"seconds": "s a step", "mebibytes": "MiB a step adds"}


def measure(length: int, window: str, options: argparse.Namespace) -> dict[str, float]:
    """One configuration in this process: the median step and the peak above the start."""
    import torch

    from aaa import Full, Global, Local, sparsify
    from aaa.experiments.environment import peak_memory_bytes, reset_peak_memory
    from aaa.models.lra import LraEncoder

    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pattern = Full() if window == FULL else Local(int(window)) | Global(1)
    executor = options.full_executor if window == FULL else options.executor
    encoder = LraEncoder(max_length=length + 1)
    model = sparsify(encoder.classifier(2).to(device), pattern, executor).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    texts = {
        "input_ids": torch.randint(1, 257, (options.batch, length + 1), device=device),
        "attention_mask": torch.ones(options.batch, length + 1, dtype=torch.long, device=device),
        "labels": torch.arange(options.batch, device=device) % 2,
    }
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    reset_peak_memory()
    before, seconds = peak_memory_bytes(device), []
    for _ in range(options.steps + 1):
        since = clock()
        model(**texts).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - since)
    return {
        "seconds": sorted(seconds[1:])[len(seconds[1:]) // 2],
        "mebibytes": (peak_memory_bytes(device) - before) / 2**20,
    }


def in_fresh_process(length: int, window: str, arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, __file__, *arguments, "--one", str(length), window]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{window} at {length}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return dict.fromkeys(QUANTITIES, math.nan)  # out of memory, say: the others go on
    return json.loads(done.stdout)


def exponent(lengths: list[int], values: list[float]) -> float:
    """The slope of log value over log length."""
    logs = [
        (math.log(x), math.log(y)) for x, y in zip(lengths, values, strict=True) if y > 0
    ]  # no NaN either
    mean_x, mean_y = (sum(axis) / len(logs) for axis in zip(*logs, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return above / sum((x - mean_x) ** 2 for x, _ in logs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lengths", nargs="+", type=int, default=[1000, 2000, 4000])
    parser.add_argument("--windows", nargs="+", default=["16", "512", FULL])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--executor", default="gathered", help="of the windows")
    parser.add_argument("--full-executor", default="sdpa")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--one", nargs=2, metavar=("LENGTH", "WINDOW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(int(options.one[0]), options.one[1], options)))
        return
    found: dict[str, dict[int, Any]] = {window: {} for window in options.windows}
    for length in options.lengths:  # windows in turn: a machine that slows down slows them all
        for window in options.windows:
            found[window][length] = in_fresh_process(length, window, sys.argv[1:])
            print(window, length, found[window][length], file=sys.stderr, flush=True)
    for name, title in QUANTITIES.items():
        print(f"\n| {title} | {' | '.join(map(str, options.lengths))} | exponent |")
        print(f"| --- |{' ---: |' * (len(options.lengths) + 1)}")
        for window, cells in found.items():
            values = [cells[length][name] for length in options.lengths]
            cells_text = " | ".join(f"{value:.3g}" for value in values)
            print(f"| {window} | {cells_text} | {exponent(options.lengths, values):.2f} |")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
