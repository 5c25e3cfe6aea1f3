"""Times and memory; on a CPU each taken in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from scripts.benchmark_attention.contestants import Case

NAN = float("nan")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
GRAPH = "graph"  # a GPU's clock for replays of a CUDA graph: without what starting kernels takes
GPU_SECONDS = 0.02  # a GPU's figure is the mean over as many calls as take so long


@dataclass(frozen=True)
class Conditions:
    """Under which all figures are taken.

    Args:
        device, dtype: where, and in which precision.
        threads, memory_gb: of a worker; the latter is what it may address, on a CPU.
        clock: ``wall``, or ``cpu`` for the time of the process. A GPU has its own, for calls as
            they are made (``wall``) or as CUDA graphs (``graph``).
        patience: seconds that a call may take.
    """

    device: str
    dtype: str
    threads: int
    memory_gb: float
    clock: str
    patience: float


def measured_times(case: Case, rounds: int, under: Conditions) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, in turn; NaN for one that failed."""
    longest = under.patience * len(case.names) * (rounds + 1)
    done = _in_process(_times, (case, rounds, under), under, longest)
    return done or {name: [NAN] * rounds for name in case.names}


def measured_memory(case: Case, name: str, under: Conditions) -> float:
    """What a call adds at its peak, in MB; NaN if it failed."""
    done = _in_process(_extra_memory, (case, name, under), under, under.patience)
    return NAN if done is None else done


def _in_process(
    work: Callable[..., Any], arguments: tuple[Any, ...], under: Conditions, patience: float
) -> Any:
    """What a worker returns; None if it died or took too long.

    Workers are forks, so that they need not import anything; this process never computes, since a
    fork of one with threads at work would hang. A GPU, which tells its memory exactly and takes
    seconds to begin with, is used by this process.
    """
    if under.device == "cuda":
        try:
            return work(*arguments)
        except RuntimeError:
            return None
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_worker, args=(work, arguments, under, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(patience) else None
    except EOFError:  # it died
        return None
    finally:
        process.kill()
        process.join()


def _worker(
    work: Callable[..., Any], arguments: tuple[Any, ...], under: Conditions, answer: Connection
) -> None:
    limit = int(under.memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(under.threads)
    answer.send(work(*arguments))


def _times(case: Case, rounds: int, under: Conditions) -> dict[str, list[float]]:
    device, dtype = torch.device(under.device), getattr(torch, under.dtype)
    calls = {name: case.call(name, device, dtype) for name in case.names}
    one = _on_gpu if device.type == "cuda" else _on_cpu
    seconds: dict[str, list[float]] = {name: [] for name in case.names}
    for number in range(rounds + 1):  # the first warms up, and compiles
        for name, kept in seconds.items():
            if kept and kept[-1] != kept[-1]:
                kept.append(NAN)
                continue
            try:
                if not number and under.clock == GRAPH:
                    calls[name] = _captured(calls[name])
                taken = one(calls[name], CLOCKS.get(under.clock, time.perf_counter))
            except (RuntimeError, MemoryError):  # out of memory is a RuntimeError to torch
                taken = NAN
            if number and taken > under.patience:
                taken = NAN
            if number or taken != taken:
                kept.append(taken)
    return {name: (kept + [NAN] * rounds)[:rounds] for name, kept in seconds.items()}


def _on_cpu(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    call()
    return clock() - start


def _on_gpu(call: Callable[[], Any], _: Callable[[], float]) -> float:
    """By the GPU's own clock, over so many calls that starting them counts as it does in use."""

    def timed(times: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3 / times

    return timed(max(1, min(100, int(GPU_SECONDS / timed(1)))))


def _captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """Replays of the call; a RuntimeError if it waits for the device."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # the first compiles
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _extra_memory(case: Case, name: str, under: Conditions) -> float:
    """On a CPU the peak of the resident memory less what was resident before (Linux only)."""
    device = torch.device(under.device)
    call = case.call(name, device, getattr(torch, under.dtype))
    if device.type == "cuda":
        call()  # workspaces that stay
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    torch.randn(64, 64) @ torch.randn(64, 64)  # what the first product sets up once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from now
    resident = status("VmRSS")
    call()
    return (status("VmHWM") - resident) / 1024
