"""Whole runs: figures, skipping, failures."""

from __future__ import annotations

import gc
import logging
import math
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from aaa import Local, load_sparse, sparsity
from aaa.control import Controller
from aaa.data.batching import Collate
from aaa.experiments import fit as fit_module
from aaa.experiments import run as run_module
from aaa.experiments import train as train_module
from aaa.experiments.encoder import build_model
from aaa.experiments.plan import make_plan
from aaa.experiments.prepare import prepare
from aaa.experiments.result import MODEL, RESULT, read_result
from aaa.experiments.run import run
from aaa.record import KEY
from aaa.training.callbacks import Speed
from tests.experiments.conftest import WILD, Compose
from tests.experiments.figures import metrics_csv, numbers
from tests.experiments.folders import glue_folder

KEYS = {
    "status", "task", "pattern", "seed", "score", "metrics", "sparsity", "sparsity_per_layer",
    "steps", "examples_per_second", "wall_seconds", "peak_memory_bytes", "versions", "git_commit",
    "hardware", "headline", "run_id", "cell_id", "sparsity_target",
}  # fmt: skip


class TestOneRun:
    def test_leaves_its_figures(self, compose: Compose) -> None:
        outcome = run(compose())
        result = outcome.result
        assert result is not None
        assert outcome.status == "finished"
        assert result.keys() >= KEYS | {"row_share", "column_share"}
        assert result["score"] == 100 * result["metrics"]["validation"][result["headline"]]
        assert result["steps"] == 6
        assert len(result["sparsity_per_layer"]) == len(result["row_share"]) == 3
        assert result["sparsity"] == pytest.approx(sum(result["sparsity_per_layer"]) / 3)
        names = {"model": "tiny", "pattern": "aaa", "task": "demo_similarity"}
        assert result["config"]["names"] == names | {"group": None, "row": "aaa"}
        files = {path.name for path in outcome.directory.iterdir()} - {".lock"}
        assert files == {"config.yaml", "metrics.csv", MODEL, RESULT, "run.log"}

    def test_leaves_nothing_behind_in_its_process(
        self, compose: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sweep is many runs in one process: with the model of each its memory would fill."""
        models = []

        def remembered(*args: Any) -> Any:
            model = build_model(*args)
            models.append(weakref.ref(model))
            return model

        monkeypatch.setattr(train_module, "build_model", remembered)
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.getsignal(number) for number in signals]
        run(compose())
        gc.collect()
        assert [model() for model in models] == [None]
        assert [signal.getsignal(number) for number in signals] == before

    def test_keeps_its_gates(self, compose: Compose) -> None:
        weights = load_file(run(compose()).directory / MODEL / "model.safetensors")
        assert sum("sparse.pattern" in name for name in weights) == 3 * 2 * 2  # rows, columns

    def test_exports_a_model_that_loads(self, compose: Compose) -> None:
        """It has the very rho of the run on the run's own development set."""
        config = compose()
        outcome = run(config)
        assert outcome.result is not None
        model = load_sparse(outcome.directory / MODEL)
        prepared = prepare(make_plan(config))
        batch = Collate(prepared.tokenizer, True)(list(prepared.splits["validation"]))
        batch.pop("labels")
        with torch.no_grad():
            model(**batch)
        assert float(sparsity(model)) == pytest.approx(outcome.result["sparsity"], abs=1e-6)

    def test_an_export_is_an_encoder_for_a_further_run(
        self, compose: Compose, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        folder = run(compose()).directory / MODEL
        again = compose(
            "task=demo_acceptability",
            "model=minilm",
            f"model.path={folder}",
            "pattern=local2",
            "data.max_length=64",
        )
        outcome = run(again)
        assert outcome.status == "finished", outcome.result
        assert "saved sparse: the gates of its Union are left out" in caplog.text
        record = getattr(load_sparse(outcome.directory / MODEL).config, KEY)
        assert record["pattern"] == Local(2).spec()

    def test_counts_what_is_chosen(self, compose: Compose) -> None:
        result = run(compose()).result
        assert result is not None
        for axis in ("row", "column"):
            assert len(result[f"{axis}_share"]) == len(result[f"{axis}_count"]) == 3
            assert all(0 <= share <= 1 for share in result[f"{axis}_share"])
            most, *_ = result["chosen_tokens"][f"{axis}s"]
            assert isinstance(most["token"], str)
            assert 0 < most["chosen"] <= 1
            assert most["occurrences"] > 0

    def test_fixed_patterns_have_no_target_and_no_gates(self, compose: Compose) -> None:
        result = run(compose("pattern=local2_global2")).result
        assert result is not None
        assert result["sparsity_target"] is None
        assert "row_share" not in result

    def test_dual_ends_at_its_target(self, compose: Compose) -> None:
        """Six steps do not get there: the level of the gates is moved afterwards."""
        outcome = run(compose("sparsity.target=0.55", "sparsity.margin=0.02"))
        result = outcome.result
        assert result is not None
        assert abs(result["trained_sparsity"] - 0.57) > 0.1
        assert result["logits_lowered"] != 0
        assert result["sparsity"] == pytest.approx(0.57, abs=0.005)
        rows = [row for row in metrics_csv(outcome.directory) if row[1] == "validation/rho"]
        assert [int(row[0]) for row in rows] == [3, 6]  # what was tried is not told
        assert float(rows[-1][2]) == pytest.approx(result["sparsity"])

    def test_dual_ends_at_a_target_between_two_levels_of_few_gates(self, compose: Compose) -> None:
        """A diagonal of all layers is up to a tenth of so short texts."""
        outcome = run(compose("pattern=diagonal_task_global1", "sparsity.target=0.55"))
        result = outcome.result
        assert result is not None
        assert result["sparsity"] == pytest.approx(0.55, abs=0.01)
        assert result["gates_turned"] > 0

    @pytest.mark.parametrize("control", ["hinge", "l1"])
    def test_other_controls_end_where_training_does(self, compose: Compose, control: str) -> None:
        result = run(compose("sparsity.target=0.55", f"sparsity.control={control}")).result
        assert result is not None
        assert "trained_sparsity" not in result
        assert result["sparsity"] < 0.3

    def test_same_seed_same_numbers_other_seed_others(
        self, compose: Compose, tmp_path: Path
    ) -> None:
        first = run(compose()).result
        again = run(compose(f"run.output_dir={tmp_path / 'again'}")).result
        other = run(compose("seed=1")).result
        assert numbers(first) == numbers(again) != numbers(other)

    def test_curve_has_training_and_evaluation(self, compose: Compose) -> None:
        header, *rows = metrics_csv(run(compose()).directory)
        assert header == ["step", "name", "value"]
        names = {row[1] for row in rows}
        assert names >= {"train/loss", "train/rho", "train/alpha", "train/target"}
        speeds = [float(value) for _, name, value in rows if name == "train/examples_per_second"]
        assert len(speeds) == 6 - Speed.WARM_UP_STEPS
        assert min(speeds) > 0
        assert names >= {"validation/spearman", "validation/rho", "validation/rho_layer_0"}
        assert names >= {"validation/row_share_layer_0", "validation/column_share_layer_2"}
        assert {int(row[0]) for row in rows if row[1] == "train/loss"} == set(range(6))

    @pytest.mark.parametrize(
        "overrides",
        [
            ["training.precision=bf16-mixed"],
            ["training.gradient_checkpointing=true"],
            ["training.accumulate=2"],
            ["training.max_steps=null", "training.max_epochs=1"],
            ["training.warmup=0.5", "training.weight_decay=0.1"],
            ["run.executor=dense"],
            ["sparsity.alpha_schedule=linear", "sparsity.ramp_start=0", "sparsity.ramp_end=0"],
            ["logger=tensorboard"],
            ["logger=wandb"],
        ],
        ids=lambda overrides: overrides[0],
    )
    def test_every_setting_trains(self, compose: Compose, overrides: list[str]) -> None:
        outcome = run(compose(*overrides))
        assert outcome.status == "finished", outcome.result
        assert (outcome.directory / "metrics.csv").exists()


def test_the_control_counts_batches_not_steps(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once a batch: with two batches a step its integral would run twice as fast."""
    made: list[Controller] = []

    def keep(*arguments: Any) -> Controller:
        made.append(Controller(*arguments))
        return made[-1]

    monkeypatch.setattr(fit_module, "Controller", keep)
    run(compose("training.accumulate=2"))
    assert made[0].num_batches == 6 * 2


def test_runs_of_one_process_are_runs_of_their_own_at_wandb(compose: Compose) -> None:
    """W&B's run id is ours; without an explicit end, the second would go on in the first."""
    for overrides in (["pattern=local2"], ["pattern=full"]):
        outcome = run(compose("logger=wandb", "training.max_steps=2", *overrides))
        [folder] = (outcome.directory / "wandb").glob("offline-run-*")
        assert folder.name.endswith(outcome.directory.name)
        assert list(folder.glob(f"run-{outcome.directory.name}.wandb"))


class TestAgain:
    def test_finished_is_skipped(self, compose: Compose) -> None:
        directory = run(compose()).directory
        written = (directory / RESULT).stat().st_mtime_ns
        again = run(compose())
        assert again.status == "skipped"
        assert numbers(again.result) == numbers(read_result(directory))
        assert (directory / RESULT).stat().st_mtime_ns == written

    def test_finished_needs_no_checkpoints(self, compose: Compose) -> None:
        """A kill may have come when the result was there and they were not removed yet."""
        directory = run(compose("pattern=full")).directory
        for name in ("last.ckpt", "last.1.ckpt", "best.ckpt"):
            (directory / name).write_bytes(b"left")
        assert run(compose("pattern=full")).status == "skipped"
        assert not list(directory.glob("*.ckpt"))

    @pytest.mark.parametrize("every", [4, 6])
    def test_killed_before_the_result_is_written(
        self,
        compose: Compose,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        every: int,
    ) -> None:
        """It goes on from its last checkpoint, be it that of the last step."""

        class Killed(BaseException):
            pass

        def kill(*_: object) -> None:
            raise Killed

        caplog.set_level(logging.INFO)
        config = compose(f"run.checkpoint_every={every}", "training.keep=best")
        elsewhere = f"run.output_dir={tmp_path / 'undisturbed'}"
        undisturbed = run(compose("training.keep=best", elsewhere))
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "write_result", kill)
            with pytest.raises(Killed):
                run(config)
        again = run(config)
        assert "resuming from" in caplog.text
        assert numbers(again.result) == numbers(undisturbed.result)
        assert not list(again.directory.glob("*.ckpt"))

    def test_busy_is_left_alone(self, compose: Compose) -> None:
        directory = make_plan(compose()).directory
        directory.mkdir(parents=True)
        with FileLock(directory / ".lock"):
            assert run(compose()).status == "busy"
        assert read_result(directory) is None

    def test_failure_is_written_down_and_tried_again(
        self, compose: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("no such luck")

        with monkeypatch.context() as patch:
            patch.setattr(run_module, "_work", fail)
            outcome = run(compose())
        assert outcome.status == "failed"
        result = read_result(outcome.directory)
        assert result is not None
        assert result["error"] == "RuntimeError: no such luck"
        assert "in fail" in result["traceback"]
        assert "no such luck" in (outcome.directory / "run.log").read_text()
        assert run(compose()).status == "finished"

    def test_failure_that_cannot_be_written_down_is_still_one(
        self, compose: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(run_module, "write_result", full)
        outcome = run(compose("pattern=full", "training.max_steps=1"))
        assert outcome.status == "failed"
        assert outcome.result is not None
        assert outcome.result["error"] == "OSError: No space left on device"


class TestComesApart:
    @pytest.mark.parametrize("task", ["demo_similarity", "demo_acceptability"])
    @pytest.mark.parametrize(
        ("steps", "what"),
        [
            (4, "at step 1 the gradient is nan"),
            (1, "at step 0 the model's answers to validation texts are no numbers"),
        ],
    )
    def test_is_a_failure_at_its_step(
        self, compose: Compose, task: str, steps: int, what: str
    ) -> None:
        """Not a finished run with a score: the argmax of NaN is as good a class as any."""
        outcome = run(compose(f"task={task}", f"training.max_steps={steps}", *WILD))
        assert outcome.status == "failed"
        assert outcome.result is not None
        assert what in outcome.result["error"]
        assert "lower training.learning_rate" in outcome.result["error"]
        assert "spike" not in outcome.result["error"]

    def test_a_metric_that_is_no_number_is_named(
        self, compose: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aaa.data.metrics._Spearman.compute", lambda _: torch.tensor(math.nan))
        result = run(compose("training.max_steps=1")).result
        assert result is not None
        assert "the validation spearman is nan" in result["error"]


class TestBeforeTraining:
    def test_target_out_of_reach_says_what_is_reachable(self, compose: Compose) -> None:
        with pytest.raises(ValueError, match=r"out of reach .* leaves rho at 0\.\d+ at the most"):
            run(compose("sparsity.target=0.99"))

    def test_texts_of_another_language(self, compose: Compose, tmp_path: Path) -> None:
        folder = glue_folder(tmp_path, "rte", ["sentence1", "sentence2"])
        with pytest.raises(ValueError, match=r"tokenizer of model=tiny does not know \d+%"):
            run(compose("task=rte", f"data.path={folder}"))

    def test_checkpoint_of_another_config(self, compose: Compose) -> None:
        directory = make_plan(compose()).directory
        directory.mkdir(parents=True)
        torch.save({"run_id": "somebody"}, directory / "last.ckpt")
        with pytest.raises(ValueError, match=r"another config \(run somebody"):
            run(compose())

    def test_checkpoint_that_cannot_be_read(self, compose: Compose) -> None:
        directory = make_plan(compose()).directory
        directory.mkdir(parents=True)
        (directory / "last.ckpt").write_bytes(b"half")
        with pytest.raises(ValueError, match="cannot be read; delete them"):
            run(compose())

    def test_more_machines_need_a_launcher(self, compose: Compose) -> None:
        with pytest.raises(ValueError, match="torchrun --nnodes 2"):
            run(compose("training.num_nodes=2"))

    def test_a_wrong_number_of_processes(
        self, compose: Compose, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        monkeypatch.setenv("WORLD_SIZE", "3")
        with pytest.raises(ValueError, match="3 processes were started"):
            run(compose())
