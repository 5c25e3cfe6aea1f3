"""Pre-training runs: what names them and what they leave."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from aaa import FixedDiagonal, load_sparse
from aaa.experiments.configs import compose_config
from aaa.experiments.pretrained_runs import find_pretraining
from aaa.experiments.pretraining import make_pretraining_plan
from aaa.experiments.result import MODEL
from aaa.experiments.run import run
from aaa.places import config_folder
from aaa.training.settings import PretrainingSettings
from tests.experiments.figures import metrics_csv
from tests.experiments.pretraining.conftest import SMALL, Make, finished, losses


class TestOneRun:
    def test_leaves_its_figures_and_an_encoder(self, compose: Make) -> None:
        directory, result = finished(compose("pattern=local2_global2"))
        assert directory.parent.name == "pretraining"
        assert result["task"] == "demo_corpus"
        assert result["score"] == 100 * result["metrics"]["validation"]["masked_accuracy"]
        assert result["sparsity"] > 0.5
        assert result["tokens_per_second"] == 64 * result["examples_per_second"]
        assert 0 < result["mfu"] < 1.5  # the measured peak is no hard bound
        assert {path.name for path in directory.iterdir()} - {".lock"} == {
            "config.yaml", "metrics.csv", "model", "result.json", "run.log",
        }  # fmt: skip
        names = {row[1] for row in metrics_csv(directory)}
        assert names >= {"train/loss", "train/tokens_per_second", "train/mfu", "validation/loss"}
        assert type(load_sparse(directory / MODEL)).__name__ == "BertForMaskedLM"
        assert run(compose("pattern=local2_global2")).status == "skipped"

    def test_the_loss_falls(self, compose: Make) -> None:
        directory, _ = finished(compose("training.max_steps=60", "training.learning_rate=3e-3"))
        curve = [float(value) for value in losses(directory).values()]
        assert sum(curve[-5:]) / 5 < sum(curve[:5]) / 5 - 0.5

    @pytest.mark.parametrize(
        "further",
        [
            ["training.precision=bf16-mixed", "training.gradient_checkpointing=true"],
            ["training.accumulate=2"],
            ["training.max_steps=null", "training.max_epochs=0.1"],
            ["pattern=aaa", "sparsity.control=l1", "sparsity.alpha=1e-4"],
            ["pattern=random_density"],
            ["data.max_length=16"],
        ],
        ids=lambda further: further[0],
    )
    def test_every_setting_trains(self, compose: Make, further: list[str]) -> None:
        finished(compose(*further))

    def test_it_is_compiled_where_asked(
        self, compose: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Compiling takes a minute, so not here: docs/pretraining.md says what was tried."""
        compiled: list[str] = []
        monkeypatch.setattr(
            torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__)
        )
        finished(compose("run.compile=true", "training.max_steps=2"))
        assert compiled == ["BertModel"]

    def test_streaming(self, compose_streaming: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aaa.data.streamed.HELD_OUT_DOCUMENTS", 10)
        directory, result = finished(compose_streaming())
        assert result["epochs"] is None
        assert not (directory.parents[1] / "cache" / "tokens").exists()

    def test_a_new_encoder_with_a_tokenizer_of_its_own(self, compose: Make) -> None:
        directory, result = finished(
            compose(
                "model=bert_4x256", "model.hidden_size=16", "model.layers=2", "model.heads=2",
                "tokenizer.vocab_size=150", "tokenizer.alphabet=40", "data.max_length=32",
                "pattern=local2", "sparsity.target=0.5",
            )
        )  # fmt: skip
        assert result["vocabulary"] == 150
        assert load_sparse(directory / MODEL).config.vocab_size == 150


class TestWhatComesAfter:
    def test_fine_tuning_and_adapting(self, compose: Make, tmp_path: Path) -> None:
        """Dense pre-training, then the same encoder under another pattern, twice."""
        dense, _ = finished(compose())
        adapted, _ = finished(compose("pattern=local2_global2", f"model.path={dense.name}"))
        start, end = (load_sparse(folder / MODEL).state_dict() for folder in (dense, adapted))
        name = "bert.encoder.layer.0.attention.self.query.weight"
        moved = (end[name] - start[name]).norm() / start[name].norm()
        assert 0 < moved < 0.2  # it went on from there
        tuned = run(
            compose_config(
                [
                    "task.num_train=16", "task.num_validation=8", "training.max_steps=2",
                    "training.evaluations=1", "run.progress=false", f"model.path={adapted.name}",
                    f"run.output_dir={tmp_path / 'outputs'}", "pattern=aaa",
                ]
            )
        )  # fmt: skip
        assert tuned.status == "finished", tuned.result
        assert tuned.directory.parent.name == "runs"

    def test_diagonals_are_learned_and_then_copied(self, compose: Make, tmp_path: Path) -> None:
        learned, result = finished(
            compose("pattern=diagonal_head_global1", "training.gate_learning_rate=1.0",
                    "training.max_steps=20", "sparsity.ramp_start=0", "sparsity.ramp_end=0")
        )  # fmt: skip
        assert result["sparsity_target"] is not None
        tuned = run(
            compose_config(
                [
                    "task.num_train=16", "task.num_validation=8", "training.max_steps=2",
                    "training.evaluations=1", "run.progress=false",
                    "pattern=diagonal_fixed_global1", f"pattern.source={learned.name}",
                    f"model.path={learned}", f"run.output_dir={tmp_path / 'outputs'}",
                ]
            )
        )  # fmt: skip
        assert tuned.status == "finished", tuned.result
        [*copies] = [
            part
            for part in load_sparse(tuned.directory / MODEL).modules()
            if isinstance(part, FixedDiagonal)
        ]
        assert copies[0].distances == FixedDiagonal(str(learned)).distances
        elsewhere = shutil.copytree(learned, tmp_path / "elsewhere")  # as a target: one run
        target = "sparsity.target=match:diagonal_fixed_global1:"
        aims = [f"{target}{place}" for place in (learned.name, elsewhere)]
        first, second = (make_pretraining_plan(compose("pattern=aaa", aim)) for aim in aims)
        assert first.run_id == second.run_id

    def test_the_price_of_cells_closes_them(self, compose: Make) -> None:
        """SparseBERT's l1; without a price nothing closes in so few steps."""
        closing = ["pattern=diagonal_head_global1", "training.gate_learning_rate=0.5",
                   "sparsity.control=l1", "training.max_steps=30"]  # fmt: skip
        _, dear = finished(compose(*closing, "sparsity.alpha=1e-2"))
        _, cheap = finished(compose(*closing, "sparsity.alpha=1e-9"))
        assert dear["sparsity_target"] is None
        assert dear["sparsity"] > cheap["sparsity"] + 0.2


class TestIdentity:
    def test_how_a_step_is_divided_is_not_in_the_name(self, compose: Make) -> None:
        def ids(*further: str) -> tuple[str, str]:
            plan = make_pretraining_plan(compose(*further))
            return plan.run_id, plan.kin_id

        whole = ids("training.batch_size=8")
        assert ids("training.batch_size=2", "training.accumulate=4") == whole
        assert ids("training.batch_size=4", "training.devices=2") == whole
        other = ids("training.batch_size=16")
        assert other[0] != whole[0]
        assert other[1] == whole[1]
        assert ids("training.batch_size=8", "training.learning_rate=1")[1] != whole[1]
        assert ids("training.batch_size=8", "run.checkpoint_every=3") == whole

    def test_a_run_is_found_by_its_overrides(self, overrides: list[str], compose: Make) -> None:
        before = find_pretraining(overrides)
        assert before.model_folder is None
        assert before.command.startswith("aaa pretrain corpus.num_documents=200")
        directory, _ = finished(compose())
        after = find_pretraining(overrides)
        assert after.directory == before.directory == directory
        assert after.model_folder == directory / MODEL

    def test_a_run_is_found_amid_another_command(self, overrides: list[str]) -> None:
        """A sweep's cells ask for it; their Hydra must stay as it is."""
        alone = find_pretraining(overrides)
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            outer = hydra_compose("finetune", ["pattern=local2"], return_hydra_config=True)
            HydraConfig.instance().set_config(outer)
            assert find_pretraining(overrides) == alone
            assert GlobalHydra.instance().is_initialized()
            assert HydraConfig.get().runtime.choices["pattern"] == "local2"

    @pytest.mark.parametrize(
        ("further", "message"),
        [
            (["data.held_out=0.6"], "data.held_out must be a share"),
            (["data.max_length=2"], "data.max_length must be 3 or more"),
            (["data.max_length=65"], "takes at most 64 tokens"),
            (["run.checkpoint_minutes=0"], "run.checkpoint_minutes"),
            (["run.keep_checkpoints=0"], "run.keep_checkpoints"),
            (["run.num_workers=two"], "run.num_workers must be null .* or 1 or more, not 'two'"),
            (["run.num_workers=-1"], "run.num_workers must be null"),
            (["tokenizer.vocab_size=999"], "tokenizer.vocab_size would do nothing: model=tiny"),
            (["model=bert_4x256", "model.path=/some", "model.layers=7"],
             "model.layers would do nothing: /some has its own"),
            (["model=bert_4x256", "model.path=/some", "tokenizer.lowercase=false"],
             "tokenizer.lowercase would do nothing: /some has its own"),
            (["training.spike=0.5"], "training.spike must be above 1"),
            (["training.masked=1"], "training.masked must be between 0 and 1"),
            (["pattern=syntax"], "blocks of packed documents do not have"),
            (["data.streaming=true", "training.max_steps=null", "training.max_epochs=1"],
             "needs training.max_steps"),
            (["data.streaming=true"], "data.held_out=0.05 is a share, .* leave it out"),
            (["model=bert_4x256", "model.heads=3"], "multiple of model.heads"),
            (["model=bert_4x256", "model.dropout=1"], "model.dropout"),
            (["model=bert_4x256", "model.layers=0"], "model.layers must be 1 or more"),
            (["data.path=/nowhere"], "data.path=/nowhere would do nothing: corpus=demo_corpus"),
            (["data.config=2014.en"], "data.config=.* choose corpus=wikipedia or scale=small"),
            (["tokenizer.path=/nowhere"], "tokenizer.path=/nowhere .* model=tiny brings its own"),
            (["corpus.num_documents=0"], "num_documents must be 1 or more"),
            (["corpus.num_documents=60", "data.held_out=0.02", "training.devices=8"],
             "held out are 1 blocks, fewer than the 8 processes: raise data.held_out"),
            (["run.resume_from=nowhere"], "has no checkpoint that can be read"),
            (["pattern=aaa", "sparsity.target=0.99"], "out of reach"),
        ],
        ids=lambda value: str(value[0]) if isinstance(value, list) else "",
    )  # fmt: skip
    def test_bad_input(self, compose: Make, further: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            run(compose(*further))

    @pytest.mark.parametrize(
        "further", [["data.max_length=65"], ["pattern=aaa", "sparsity.target=0.99"]], ids=str
    )
    def test_nothing_is_tokenised_before_it_is_refused(
        self, compose: Make, further: list[str], tmp_path: Path
    ) -> None:
        config = compose(*further, f"run.output_dir={tmp_path / 'new'}")
        with pytest.raises(ValueError, match=r"takes at most|out of reach"):
            run(config)
        assert not (tmp_path / "new/cache").exists()

    def test_a_tokenizer_of_other_texts(self, compose: Make, tmp_path: Path) -> None:
        write_articles(tmp_path / "wiki")
        config = compose_config(
            [*SMALL[1:], "corpus=wikipedia", f"data.path={tmp_path / 'wiki'}", "data.config=en",
             f"run.output_dir={tmp_path}"], "pretrain",
        )  # fmt: skip
        with pytest.raises(ValueError, match=r"does not know \d+% of the tokens of corpus=wiki"):
            run(config)

    @pytest.mark.parametrize("scale", ["demo", "small", "paper"])
    def test_every_scale_is_a_plan(self, scale: str) -> None:
        plan = make_pretraining_plan(
            compose_config([f"scale={scale}", "run.accelerator=cpu"], "pretrain")
        )
        if scale == "paper":  # which names a tokenizer
            settings = plan.settings
            assert (settings.max_steps, settings.batch_size, settings.devices) == (10**6, 32, 8)
            assert plan.encoder.num_layers == 12


def write_articles(folder: Path, count: int = 60) -> None:
    """A folder laid out like ``wikimedia/wikipedia``."""
    import pyarrow
    import pyarrow.parquet

    (folder / "en").mkdir(parents=True)
    texts = [f"Parliament ratified unprecedented legislation {n}." for n in range(count)]
    columns = {"id": list(map(str, range(count))), "title": texts, "text": texts}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "en" / "train-0.parquet")
    lines = ["---", "configs:", "- config_name: en", "  data_files:",
             "  - {split: train, path: en/train-*}", "---", ""]  # fmt: skip
    (folder / "README.md").write_text("\n".join(lines))


def test_settings_count_a_step() -> None:
    plan = make_pretraining_plan(
        compose_config(["training.batch_size=3", "training.accumulate=2", "training.devices=2",
                        "training.num_nodes=5"], "pretrain")
    )  # fmt: skip
    assert isinstance(plan.settings, PretrainingSettings)
    assert plan.settings.examples_a_step == 60
