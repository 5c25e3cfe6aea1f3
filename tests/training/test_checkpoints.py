"""Checkpoints are whole or not there, the latest few are kept, and a full disk harms none."""

from __future__ import annotations

import errno
import logging
import resource
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aaa.experiments.resume import find_resume_point, put_aside_later
from aaa.training import checkpoints
from aaa.training.checkpoint_files import generations
from aaa.training.checkpoints import ResumePoint, SafeCheckpointIO, ends_step


def state(step: int) -> dict[str, Any]:
    return {"global_step": step, "run_id": "me", "weights": torch.full((1000,), float(step))}


def steps(folder: Path) -> list[int]:
    return [torch.load(path)["global_step"] for path in generations(folder / "last.ckpt")]


def test_the_latest_few_are_kept(tmp_path: Path) -> None:
    io = SafeCheckpointIO(keep=3)
    for step in range(1, 6):
        io.save_checkpoint(state(step), tmp_path / "last.ckpt")
    assert steps(tmp_path) == [5, 4, 3]
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "last.half.ckpt").touch()  # not one of ours
    assert len(generations(tmp_path / "last.ckpt")) == 3


def test_one_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    for step in (1, 2):
        SafeCheckpointIO().save_checkpoint(state(step), tmp_path / "last.ckpt")
    assert steps(tmp_path) == [2]


def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The system itself refuses to write more than 2000 bytes to a file."""
    io = SafeCheckpointIO(keep=2)
    io.save_checkpoint(state(1), tmp_path / "last.ckpt")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        io.save_checkpoint(state(2), tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "no checkpoint could be written at step 2" in caplog.text
    assert "the one before stays" in caplog.text
    assert steps(tmp_path) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    io.save_checkpoint(state(3), tmp_path / "last.ckpt")
    assert steps(tmp_path) == [3, 1]


def test_no_space_and_nothing_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    SafeCheckpointIO().save_checkpoint(state(1), tmp_path / "last.ckpt")
    assert "No space left on device" in caplog.text
    assert "there is none before it" in caplog.text


def test_no_flipped_bit_ends_in_another_error(tmp_path: Path) -> None:
    """zipfile raises a dozen kinds of errors, by where the damage is."""
    SafeCheckpointIO(keep=1).save_checkpoint(state(1), tmp_path / "last.ckpt")
    whole = (tmp_path / "last.ckpt").read_bytes()
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 0x40
        (tmp_path / "last.ckpt").write_bytes(content)
        with suppress(ValueError):  # what is said of one that is damaged
            assert find_resume_point(tmp_path, "me") in (tmp_path / "last.ckpt", None)


@pytest.mark.parametrize("damage", ["half", "bit", "empty"])
def test_a_damaged_one_gives_way_to_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    io = SafeCheckpointIO(keep=2)
    for step in (1, 2):
        io.save_checkpoint(state(step), tmp_path / "last.ckpt")
    latest = tmp_path / "last.ckpt"
    content = bytearray(latest.read_bytes())
    if damage == "bit":  # in the middle of the weights: torch.load alone would not see it
        content[len(content) // 2] ^= 1
        latest.write_bytes(content)
        assert torch.load(latest)["global_step"] == 2
    else:
        latest.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    assert find_resume_point(tmp_path, "me") == tmp_path / "last.1.ckpt"
    assert "last.ckpt cannot be read" in caplog.text
    assert "trying the one before it" in caplog.text
    put_aside_later(tmp_path, tmp_path / "last.1.ckpt")
    assert not latest.exists()
    io.save_checkpoint(state(3), latest)
    assert steps(tmp_path) == [3, 1]  # the damaged one did not push the sound one out


def test_a_kill_amid_the_renaming_leaves_the_one_before(tmp_path: Path) -> None:
    io = SafeCheckpointIO(keep=2)
    io.save_checkpoint(state(1), tmp_path / "last.ckpt")
    (tmp_path / "last.ckpt").rename(tmp_path / "last.1.ckpt")  # then the kill
    assert find_resume_point(tmp_path, "me") == tmp_path / "last.1.ckpt"


def test_none_yet_and_none_sound(tmp_path: Path) -> None:
    assert find_resume_point(tmp_path, "me") is None
    for name in ("last.ckpt", "last.1.ckpt"):
        (tmp_path / name).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"last\.ckpt, last\.1\.ckpt in .* cannot be read"):
        find_resume_point(tmp_path, "me")


class Recorder:
    """As much of a trainer as a resume point asks for."""

    def __init__(self, accumulate: int = 1, world_size: int = 1) -> None:
        self.global_step, self.accumulate_grad_batches = 0, accumulate
        self.world_size = world_size
        self.saved: list[int] = []
        self.asked: list[bool] = []
        self.strategy = SimpleNamespace(
            barrier=lambda _: None, reduce_boolean_decision=self._decide
        )

    def _decide(self, late: bool, all: bool) -> bool:
        self.asked.append(late)
        return late

    def save_checkpoint(self, path: Path) -> None:
        self.saved.append(self.global_step)

    def run(self, point: ResumePoint, batches: int) -> list[int]:
        module: Any = None
        trainer: Any = self
        point.on_train_start(trainer, module)
        for batch in range(batches):
            self.global_step = (batch + 1) // self.accumulate_grad_batches
            point.on_train_batch_end(trainer, module, None, None, batch)
        return self.saved


def test_every_so_many_steps(tmp_path: Path) -> None:
    assert Recorder().run(ResumePoint(tmp_path, 3, {}), 10) == [3, 6, 9]


def test_never_amid_a_step(tmp_path: Path) -> None:
    """Gradients of the micro-steps so far would be missing."""
    assert Recorder(accumulate=4).run(ResumePoint(tmp_path, 100, {}, every_minutes=1e-9), 12) == [
        1, 2, 3,
    ]  # fmt: skip
    assert not ends_step(Recorder(accumulate=4), 4)  # type: ignore[arg-type]


def test_every_so_many_minutes_all_processes_together(tmp_path: Path) -> None:
    recorder = Recorder(world_size=2)
    assert recorder.run(ResumePoint(tmp_path, 100, {}, every_minutes=1e-9), 3) == [1, 2, 3]
    assert recorder.asked == [True] * 3
    assert Recorder().run(ResumePoint(tmp_path, 100, {}, every_minutes=60), 3) == []
