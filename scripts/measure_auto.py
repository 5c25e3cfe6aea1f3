"""What ``auto`` chooses for masks of many kinds, and how far that is from the faster executor.

Its constants (aaa/attention/auto.py) were fitted to this. CPU time for one thread, which machines
where other processes run give too; wall clock for several.

    python scripts/measure_auto.py --lengths 256 512 1024 --mode forward learned --threads 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from aaa.attention.auto import EXECUTE, choose
from aaa.masks import SparseMask

HEADS, FEATURES = 12, 64
ROUNDS = 5
MODES = {"forward": "sdpa", "learned": "dense"}  # and what ``gathered`` is measured against


def masks(num_tokens: int) -> Iterator[tuple[str, SparseMask]]:
    """By name, of one text; those of each head differ from head to head."""
    keep_BN = torch.ones(1, num_tokens, dtype=torch.bool)

    def drawn(share: float, count: int, heads: int = 1) -> Tensor:
        return (torch.rand(1, heads, count) < share).float()

    def diagonals(gates_BHK: Tensor) -> SparseMask:
        gates_BHK[..., 0] = 1
        return SparseMask(keep_BN, diagonals_BHK=gates_BHK)

    def axes(share: float, heads: int = 1) -> SparseMask:
        rows, columns = (drawn(share, num_tokens, heads) for _ in range(2))
        return SparseMask(keep_BN, rows, columns, torch.ones(1, 1, 3))

    yield "axes 3 %", axes(0.03)
    yield "axes 15 %", axes(0.15)
    yield "axes 40 %", axes(0.4)
    yield "axes 3 %, each head", axes(0.03, HEADS)
    yield "axes 15 %, each head", axes(0.15, HEADS)
    yield "window of 16", diagonals(torch.ones(1, 1, 16))
    yield "window of 128", diagonals(torch.ones(1, 1, 128))
    degrees_H1 = torch.randint(2, 60, (1, HEADS, 1))
    yield "degrees to 60, each head", diagonals((torch.arange(128) < degrees_H1).float())
    yield "20 % of 128 distances", diagonals(drawn(0.2, 128))
    yield "20 % of 128, each head", diagonals(drawn(0.2, 128, HEADS))
    yield "2 % of all distances", diagonals(drawn(0.02, num_tokens))
    yield "0.5 % of all distances", diagonals(drawn(0.005, num_tokens))
    edges_BE2 = torch.randint(0, num_tokens, (1, 8 * num_tokens, 2))
    yield "8 cells a row", SparseMask(keep_BN, None, None, torch.ones(1, 1, 1), edges_BE2)


def milliseconds(run: Callable[[], object]) -> float:
    """Of the fastest round, after one to warm up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    run()
    times = []
    for _ in range(ROUNDS):
        start = clock()
        run()
        times.append(clock() - start)
    return 1000 * min(times)


def measure(mask: SparseMask, mode: str) -> tuple[dict[str, float], str]:
    """Milliseconds of each executor, and which ``auto`` takes."""
    learned = mode == "learned"
    if learned:
        gates = (mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK)
        rows, columns, own = (g if g is None else g.clone().requires_grad_() for g in gates)
        mask = SparseMask(mask.keep_BN, rows, columns, own, mask.edges_BE2)
    shape = (1, HEADS, mask.keep_BN.shape[1], FEATURES)
    query, key, value = (torch.randn(shape, requires_grad=learned) for _ in range(3))

    def attend(name: str) -> None:
        with torch.set_grad_enabled(learned):
            output, _ = EXECUTE[name](query, key, value, mask, FEATURES**-0.5)
        if learned:
            output.sum().backward()

    times = {name: milliseconds(partial(attend, name)) for name in (MODES[mode], "gathered")}
    return times, choose(mask, learned)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[256, 320, 384, 448, 512, 1024, 2048]
    )
    parser.add_argument("--mode", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for mode in options.mode:
        for num_tokens in options.lengths:
            for name, mask in masks(num_tokens):
                times, chosen = measure(mask, mode)
                told = ", ".join(f"{executor} {took:.1f} ms" for executor, took in times.items())
                ratio = times[chosen] / min(times.values())
                print(
                    f"{mode} {num_tokens:5} {name:25} {told}: {chosen}, {ratio:.2f} x the faster",
                    flush=True,
                )


if __name__ == "__main__":
    main()
