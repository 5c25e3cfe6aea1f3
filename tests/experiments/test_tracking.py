"""W&B: one W&B run a run, and what is in it, read back from the files of offline runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from PIL import Image

from aaa.experiments.configs import compose_config
from aaa.experiments.result import Outcome
from aaa.experiments.run import run
from aaa.tracking import media_of, wandb_name
from aaa.training.callbacks import ResumePoint
from aaa.training.loggers import Conclusion
from tests.experiments.conftest import DATA, SMALL, Compose
from tests.wandb_files import WrittenRun, written_runs

STEP = "trainer/global_step"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, WrittenRun]:
    """A run of a table's cell, and its W&B run."""
    outputs = tmp_path_factory.mktemp("wandb")
    own = [
        "logger=wandb",
        f"run.output_dir={outputs}",
        "names.group=table_4.demo",
        "names.row=aaa_1",
    ]
    outcome = run(compose_config([*DATA, *SMALL, *own]))
    assert outcome.status == "finished", outcome.result
    [written] = written_runs(outcome.directory)
    return outcome, written


def test_identity(finished: tuple[Outcome, WrittenRun]) -> None:
    outcome, written = finished
    assert written.run["run_id"] == outcome.directory.name
    assert written.run["display_name"] == "demo_similarity aaa seed 0"
    assert written.run["run_group"] == "table_4.demo"
    assert written.run["job_type"] == "aaa_1"
    assert set(written.run["tags"]) == {"tiny", "aaa", "demo_similarity"}
    assert written.run["project"] == "adaptive-axis-attention"
    assert written.exit_code == 0


def test_config_is_the_resolved_config(finished: tuple[Outcome, WrittenRun]) -> None:
    outcome, written = finished
    assert outcome.result is not None
    config = {key: value for key, value in written.config.items() if key != "_wandb"}
    assert config == outcome.result["config"]
    assert config["names"]["row"] == "aaa_1"


def test_metrics_have_the_steps_of_training(finished: tuple[Outcome, WrittenRun]) -> None:
    _, written = finished
    losses = {item[STEP]: item["train/loss"] for item in written.history if "train/loss" in item}
    assert sorted(losses) == list(range(6))
    assert {"train/rho", "train/target", "train/alpha", "train/learning_rate"} <= {
        name for item in written.history for name in item
    }
    evaluated = [item[STEP] for item in written.history if "validation/spearman" in item]
    assert len(evaluated) == 2
    assert evaluated[-1] == 6
    layers = [item for item in written.history if "validation_layers/rho/02" in item]
    assert len(layers) == 2
    assert not any("rho_layer" in name for item in written.history for name in item)


def test_every_metric_is_drawn_over_training_steps(finished: tuple[Outcome, WrittenRun]) -> None:
    defined = {m.get("name") or m.get("glob_name"): m for m in finished[1].of("metric")}
    assert defined["*"]["step_metric"] == STEP
    assert defined["validation_layers/*"]["step_metric"] == STEP
    assert defined["validation_layers/*"]["summary"] == {"none": True}


def test_summary_has_the_cells_figures(finished: tuple[Outcome, WrittenRun]) -> None:
    outcome, written = finished
    result, summary = outcome.result, written.summary
    assert result is not None
    assert summary["score"] == pytest.approx(result["score"])
    assert summary["rho"] == pytest.approx(100 * result["sparsity"])
    assert summary["rho_target"] == pytest.approx(100 * result["sparsity_target"])
    shares = result["row_share"]
    assert summary["row_share"] == pytest.approx(100 * sum(shares) / len(shares))
    assert summary["column_count"] == pytest.approx(sum(result["column_count"]) / 3)
    assert summary["peak_memory_gib"] > 0.05
    assert summary["wall_minutes"] == pytest.approx(result["wall_seconds"] / 60)


def test_statistics_are_tables(finished: tuple[Outcome, WrittenRun]) -> None:
    outcome, written = finished
    result = outcome.result
    assert result is not None
    layers = written.table("statistics/layers")
    assert layers["columns"][:2] == ["layer", "rho"]
    assert [line[1] for line in layers["data"]] == pytest.approx(
        [100 * rho for rho in result["sparsity_per_layer"]]
    )
    assert written.table("statistics/rows_tokens")["columns"] == [
        "token",
        "chosen %",
        "occurrences",
    ]


def test_pictures_of_masks_and_of_the_course(finished: tuple[Outcome, WrittenRun]) -> None:
    outcome, written = finished
    assert {"masks/0", "masks/1", "course", "layers"} <= set(written.media())
    [last] = [item for item in written.history if "masks/0.path" in item]
    assert last[STEP] == 6
    assert "|" in last["masks/0.caption"]  # a pair of texts
    with Image.open(written.folder / "files" / last["masks/0.path"]) as picture:
        assert picture.width > 300
    assert (outcome.directory / "metrics.csv").exists()


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sends SIGTERM when that many steps are done; the returned function ends that."""
    original = ResumePoint.on_train_batch_end

    def send(self: ResumePoint, trainer: object, *rest: object) -> None:
        original(self, trainer, *rest)  # type: ignore[arg-type]
        if trainer.global_step == steps:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ResumePoint, "on_train_batch_end", send)
    return monkeypatch.undo


def test_a_resumed_run_goes_on_in_its_wandb_run(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline each process has a folder of its own; W&B's sync puts those of one id together."""
    go_on = stop_after(3, monkeypatch)
    config = compose("logger=wandb", "logger.num_texts=0")
    assert run(config).status == "interrupted"
    go_on()
    outcome = run(config)
    assert outcome.status == "finished"
    first, second = written_runs(outcome.directory)
    assert first.run["run_id"] == second.run["run_id"] == outcome.directory.name
    assert (first.exit_code, second.exit_code) == (1, 0)

    def steps(written: WrittenRun) -> list[int]:
        return [item[STEP] for item in written.history if "train/loss" in item]

    assert steps(first) + steps(second) == list(range(6))  # none lost, none twice
    assert "score" not in first.summary
    assert "score" in second.summary
    assert not [key for key in second.media() if key.startswith("masks")]


def test_a_failed_run_is_failed_at_wandb(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(ResumePoint, "on_train_batch_end", fail)
    outcome = run(compose("logger=wandb"))
    assert outcome.status == "failed"
    [written] = written_runs(outcome.directory)
    assert written.exit_code == 1


def test_a_summary_that_cannot_be_made_does_not_fail_the_run(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("aaa.tracking.sentence_maps", fail)
    outcome = run(compose("logger=wandb", "pattern=local2", "training.max_steps=2"))
    assert outcome.status == "finished"
    assert "summary is incomplete" in caplog.text
    [written] = written_runs(outcome.directory)
    assert "score" in written.summary
    assert "rho_target" not in written.summary  # nothing to reach


def test_a_pattern_that_reads_more_than_a_text_has_no_masks_to_show(
    finished: tuple[Outcome, WrittenRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("this run's pattern reads parses")

    monkeypatch.setattr("aaa.tracking.sentence_maps", refuse)
    directory, result = finished[0].directory, finished[0].result
    assert result is not None
    media = media_of(Conclusion(directory, result, lambda count: [("a", None)] * count), 2)
    assert {"course", "layers", "statistics/layers"} <= media.keys()
    assert not [name for name in media if name.startswith("masks")]


def test_names_of_metrics() -> None:
    assert wandb_name("validation/rho_layer_3") == "validation_layers/rho/03"
    assert (
        wandb_name("validation_mismatched/row_share_layer_11")
        == "validation_mismatched_layers/row_share/11"
    )
    assert wandb_name("train/rho") == "train/rho"
