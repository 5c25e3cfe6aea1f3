"""Pre-training never loses its place: stopped, resumed, divided otherwise, come apart."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from aaa.experiments import prepare_corpus, train_corpus
from aaa.experiments.pretraining import make_pretraining_plan
from aaa.experiments.result import read_result
from aaa.experiments.run import run
from tests.experiments.figures import reached
from tests.experiments.pretraining.conftest import Make, finished, losses


def command(overrides: list[str]) -> list[str]:
    return [sys.executable, "-m", "aaa", "pretrain", *overrides]


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
LONG = ("training.max_steps=40", "run.checkpoint_every=3", "pattern=aaa")


@pytest.mark.slow
class TestStopped:
    def test_killed_twice_and_resumed_to_the_last_bit(
        self,
        compose: Make,
        overrides: list[str],
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """SIGKILL, and once the latest checkpoint is damaged besides."""
        caplog.set_level(logging.INFO)
        torch.set_num_threads(1)
        undisturbed = run(compose(*LONG, f"run.output_dir={tmp_path / 'undisturbed'}"))
        directory = make_pretraining_plan(compose(*LONG)).directory
        for kill, steps in enumerate((8, 20)):
            self.kill_at(steps, [*overrides, *LONG], directory)
            if kill:
                latest = directory / "last.ckpt"
                latest.write_bytes(latest.read_bytes()[:1000])
        assert run(compose(*LONG)).status == "finished"
        log = (directory / "run.log").read_text()
        assert log.count("resuming from") == 2
        assert "trying the one before it" in log
        assert losses(directory) == losses(undisturbed.directory)
        result, expected = read_result(directory), undisturbed.result
        assert result is not None
        assert expected is not None
        for name in ("score", "metrics", "sparsity", "sparsity_per_layer", "row_share"):
            assert result[name] == expected[name]
        assert not list(directory.glob("*.ckpt"))

    def kill_at(self, steps: int, overrides: list[str], directory: Path) -> None:
        process = subprocess.Popen(command(overrides), env=ONE_THREAD, stderr=subprocess.DEVNULL)
        until = time.time() + 200
        while process.poll() is None and time.time() < until:
            if (directory / "last.1.ckpt").exists() and reached(directory) >= steps:
                process.send_signal(signal.SIGKILL)
                assert process.wait(60) == -signal.SIGKILL
                return
            time.sleep(0.01)
        raise AssertionError(f"it ended with {process.poll()} before step {steps}")


class Stop(Exception):
    """In the place of a kill."""


def stopped_after(steps: int, config: DictConfig) -> Path:
    """The directory of a run that fails once it has made so many steps."""
    original = train_corpus.LossGuard.on_train_batch_end

    def hook(self: Any, trainer: Any, *rest: Any, **further: Any) -> None:
        original(self, trainer, *rest, **further)
        if trainer.global_step == steps:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_corpus.LossGuard, "on_train_batch_end", hook)
        outcome = run(config)
    assert outcome.status == "failed"
    return outcome.directory


class TestGoingOn:
    @pytest.mark.parametrize("how", ["compose", "compose_streaming"])
    def test_in_another_division_as_if_nothing_had_happened(
        self,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        how: str,
    ) -> None:
        """Five steps in batches of 4, the rest in two micro-batches of 2 (no dropout here)."""
        monkeypatch.setattr("aaa.data.streamed.HELD_OUT_DOCUMENTS", 10)
        monkeypatch.setattr("aaa.data.streamed.POOL", 8)
        caplog.set_level(logging.INFO)
        compose: Make = request.getfixturevalue(how)
        shared = ("run.checkpoint_every=5", "run.log_every=2")
        undisturbed, _ = finished(compose(*shared))
        again = f"run.output_dir={undisturbed.parents[1] / 'again'}"
        stopped_after(6, compose(*shared, again))
        divided = ("training.batch_size=2", "training.accumulate=2")
        directory, _ = finished(compose(*shared, *divided, again))
        assert directory.name == undisturbed.name
        assert "resuming from" in caplog.text
        expected, got = losses(undisturbed), losses(directory)
        assert max(got) == max(expected) == 7
        for step in got.keys() & expected.keys():
            assert float(got[step]) == pytest.approx(float(expected[step]), abs=1e-5)

    def test_with_larger_steps_over_the_rest_of_the_epoch(
        self, compose: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        interrupted = stopped_after(6, compose("run.checkpoint_every=5"))
        numbers: list[int] = []
        read = prepare_corpus.MaskedBlocks.__getitems__

        def recording(self: Any, wanted: list[int]) -> Any:
            if self.shuffle_seed is not None:
                numbers.extend(wanted)
            return read(self, wanted)

        monkeypatch.setattr(prepare_corpus.MaskedBlocks, "__getitems__", recording)
        config = compose("training.batch_size=3", "training.accumulate=2",
                         f"run.resume_from={interrupted.name}")  # fmt: skip
        _, result = finished(config)
        assert numbers == list(range(20, 38))  # five steps of four were on disk; three of six
        assert result["steps"] == 8

    def test_not_from_a_run_that_differs_in_more(self, compose: Make) -> None:
        interrupted = stopped_after(6, compose("run.checkpoint_every=5"))
        config = compose("training.learning_rate=1", f"run.resume_from={interrupted}")
        with pytest.raises(ValueError, match="differs in more than how a step is divided"):
            run(config)


class TestComesApart:
    def test_a_nan_stops_it_with_a_checkpoint_from_before(
        self, compose: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = train_corpus.Pretrain.training_step

        def poisoned(self: Any, batch: Any, batch_idx: int) -> Any:
            loss = original(self, batch, batch_idx)
            return loss * float("nan") if batch_idx == 6 else loss

        monkeypatch.setattr(train_corpus.Pretrain, "training_step", poisoned)
        outcome = run(compose("run.checkpoint_every=2"))
        assert outcome.status == "failed"
        assert outcome.result is not None
        assert "at step 6 the gradient is nan" in outcome.result["error"]
        state = torch.load(outcome.directory / "last.ckpt", weights_only=True)
        assert state["global_step"] == 6
        assert all(value.isfinite().all() for value in state["state_dict"].values())
        run_id = outcome.directory.name
        assert f"model.path={run_id} begins with its weights of step 6" in outcome.result["error"]
        assert not (outcome.directory / "progress.json").exists()
        monkeypatch.undo()
        further = run(compose(f"model.path={run_id}"))
        assert further.status == "finished"

    def test_a_rate_far_too_high(self, compose: Make) -> None:
        outcome = run(
            compose("training.max_steps=60", "training.learning_rate=30", "training.clip=1000")
        )
        assert outcome.status == "failed"
        assert outcome.result is not None
        assert "lower training.learning_rate" in outcome.result["error"]


@pytest.mark.slow
def test_two_processes_follow_one_with_twice_the_micro_steps(
    compose: Make, tmp_path: Path
) -> None:
    """50 steps, dropout and all; the same micro-batches, whose losses are summed otherwise."""
    shared = (
        "training.max_steps=50", "training.batch_size=4", "model=bert_4x256", "data.max_length=32",
        "model.hidden_size=32", "model.layers=2", "model.heads=2", "model.dropout=0.1",
        "tokenizer.vocab_size=200", "tokenizer.alphabet=40", "pattern=local2_global2",
    )  # fmt: skip
    one, _ = finished(compose(*shared, "training.accumulate=2"))
    two, result = finished(
        compose(*shared, "training.devices=2", f"run.output_dir={tmp_path / 'two'}")
    )
    assert result["hardware"]["processes"] == 2
    expected, got = losses(one), losses(two)
    assert got.keys() == expected.keys() == set(range(50))
    for step, loss in expected.items():
        assert float(got[step]) == pytest.approx(float(loss), abs=1e-4)
