"""``last.ckpt``: the place from which an interrupted run goes on."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from aaa.experiments.result import CHECKPOINT
from aaa.places import first_line
from aaa.training.checkpoint_files import generations

log = logging.getLogger(__name__)

BEST = "best.ckpt"  # beside it, for training.keep=best: the weights of the best evaluation
DAMAGED = ".damaged"  # behind the name of a checkpoint that could not be read
OWNER = "run_id"  # the key under which a checkpoint says whose it is
KIN = "kin_id"  # and, in pre-training, which other runs could go on from it


def find_resume_point(directory: Path, run_id: str) -> Path | None:
    """The latest checkpoint of a run that is sound, or None where there is none yet.

    One that is half written or damaged is left aside, which is said in the log.

    Raises:
        ValueError: if there are checkpoints and none can be read, or it is another run's (copied
            there, say).
    """
    found = generations(directory / CHECKPOINT)
    for path in found:
        problem = _damage(path)
        if problem is not None:
            log.warning("%s cannot be read (%s): trying the one before it", path, problem)
            continue
        owner = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get(OWNER)
        if owner != run_id:
            raise ValueError(
                f"{path} is the checkpoint of another config (run {owner}, not {run_id}); move it "
                "away to have the run start anew"
            )
        return path
    if found:
        names = ", ".join(path.name for path in found)
        raise ValueError(
            f"{names} in {directory} cannot be read; delete them to have the run start anew"
        )
    return None


def put_aside_later(directory: Path, sound: Path) -> None:
    """Gives checkpoints after a sound one another name: they are damaged.

    In their places they would push it out when the next ones are written.
    """
    found = generations(directory / CHECKPOINT)
    for path in found[: found.index(sound)]:
        with suppress(FileNotFoundError):  # another process of the run was faster
            path.replace(path.with_name(path.name + DAMAGED))


def remove_checkpoints(directory: Path) -> None:
    """For a run whose result is written: it has no place to come back to."""
    damaged = directory.glob(f"*{DAMAGED}")
    for path in (*generations(directory / CHECKPOINT), directory / BEST, *damaged):
        path.unlink(missing_ok=True)


def _damage(path: Path) -> str | None:
    """What is wrong with a file that torch.save wrote: a zip archive with checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)  # its own view of it
    except Exception as error:  # zipfile raises a dozen kinds, by where the damage is
        return f"{type(error).__name__}: {first_line(error)}"
    return None if bad is None else f"{bad} in it is damaged"


def adopt(source: Path, directory: Path, label: Mapping[str, str]) -> None:
    """Makes another run's place a run's own, so that it goes on from there.

    The other one may differ in the blocks of a step alone. What it has seen stays seen: the run
    goes on with the rest of that epoch, at the step that the other had come to.

    Args:
        source: the other run's directory.
        directory: the run's.
        label: of the run's checkpoints; both runs' have the same ``KIN``.

    Raises:
        ValueError: if there is no sound checkpoint, or its run differs in more.
    """
    for path in generations(source / CHECKPOINT):
        problem = _damage(path)
        if problem is None:
            break
        log.warning("%s cannot be read (%s): trying the one before it", path, problem)
    else:
        raise ValueError(f"run.resume_from: {source} has no checkpoint that can be read")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state.get(KIN) != label[KIN]:
        raise ValueError(
            f"run.resume_from: {source} differs in more than how a step is divided among devices "
            "and micro-steps: nothing of it would fit but the weights, which model.path takes"
        )
    state.update(label)
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{CHECKPOINT}.{os.getpid()}.partial"  # each of several processes writes
    torch.save(state, partial)
    partial.replace(directory / CHECKPOINT)
