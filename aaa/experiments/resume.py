"""``last.ckpt``: the place from which an interrupted run goes on."""

from __future__ import annotations

from pathlib import Path

import torch

from aaa.experiments.result import CHECKPOINT

BEST = "best.ckpt"  # beside it, for training.keep=best: the weights of the best evaluation
OWNER = "run_id"  # the key under which a checkpoint says whose it is


def check_resume_point(directory: Path, run_id: str) -> None:
    """Checks that a run's checkpoint, if there is one, can be read and is its own.

    Raises:
        ValueError: if it is another run's (copied there, say) or cannot be read.
    """
    path = directory / CHECKPOINT
    if not path.exists():
        return
    try:
        owner = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get(OWNER)
    except Exception as error:  # torch has a different one for every way of being broken
        raise ValueError(f"{path} cannot be read; delete it to have the run start anew") from error
    if owner != run_id:
        raise ValueError(
            f"{path} is the checkpoint of another config (run {owner}, not {run_id}); move it "
            "away to have the run start anew"
        )
