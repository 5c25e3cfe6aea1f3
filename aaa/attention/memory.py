"""What a CPU's memory costs when it is asked for."""

from __future__ import annotations

from functools import cache

import torch

LARGEST_FREED = 2**24  # bytes; ``gathered`` has several blocks of a quarter of that at work


@cache
def keep_freed_memory() -> None:
    """Once for a process: what a call frees is there for the next one.

    glibc hands freed memory back to the system beyond twice the largest block that it has seen
    freed, and the system clears it page by page when it is asked for again: up to half of the time
    of a short text's attention. A block counts that nothing was ever written to.
    """
    torch.empty(LARGEST_FREED, dtype=torch.uint8, device="cpu")
