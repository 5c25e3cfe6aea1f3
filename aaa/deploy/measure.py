"""How long a call takes, and how much memory it needs at its peak."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Wall time of one call, the device's own work waited for."""
    _wait(device)
    started = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - started


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """The most memory that torch had allocated during a call beyond what it had before.

    On a GPU as the caching allocator counts it; on a CPU by the profiler's record of every
    allocation. What the call returns is counted.
    """
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = function()
    del result
    assert record.profiler is not None
    assert record.profiler.kineto_results is not None
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    allocated = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        highest = max(highest, allocated)
    return highest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
