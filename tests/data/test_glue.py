"""GLUE tasks: fields, reading, checking, fingerprints; the shipped configs; the real data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hydra.utils import instantiate
from omegaconf import OmegaConf

from aaa.data.glue import GlueTask

CHECKOUT = Path(__file__).parents[2]
SHARED = CHECKOUT.parent / "shared" / "data" / "glue"
CONFIGS = sorted((CHECKOUT / "conf" / "task").glob("*.yaml"))
OTHER = """- config_name: other
  data_files:
  - {split: validation, path: other/validation-*}
"""
TEXT = ["a b", "c", "d e f", "g"]


def write_folder(root: Path, tasks: dict[str, dict[str, dict[str, list[Any]]]]) -> Path:
    """A folder of the hub's layout: tasks -> splits -> columns."""
    header = ["---", "configs:"]
    for task, splits in tasks.items():
        header += [f"- config_name: {task}", "  data_files:"]
        for split, columns in splits.items():
            header.append(f"  - {{split: {split}, path: {task}/{split}-*}}")
            (root / task).mkdir(parents=True, exist_ok=True)
            file = root / task / f"{split}-00000-of-00001.parquet"
            Dataset.from_dict(columns).to_parquet(str(file))
    (root / "README.md").write_text("\n".join([*header, "---", "# Made by a test", ""]))
    return root


def rows(labels: list[Any], **more: list[Any]) -> dict[str, list[Any]]:
    return {"sentence": TEXT[: len(labels)], "label": labels, "idx": [0] * len(labels), **more}


def task(path: Path | str, **fields: Any) -> GlueTask:
    given = {"name": "toy", "columns": ["sentence"], "num_labels": 2, "metrics": ["accuracy"]}
    return GlueTask(**{**given, "path": str(path), **fields})


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    splits = {"train": rows([0, 1, 1, 0]), "validation": rows([1, 0]), "test": rows([-1, -1])}
    return write_folder(tmp_path / "toy", {"toy": splits, "other": {"validation": rows([1])}})


def test_load_keeps_columns_rows_and_order(folder: Path) -> None:
    data = task(folder).load()
    assert list(data) == ["train", "validation"]
    assert data["train"].to_dict() == {"sentence": TEXT, "label": [0, 1, 1, 0]}
    assert data["validation"]["label"][:] == [1, 0]


def test_neither_changed_nor_like_named_data_are_mistaken(folder: Path, tmp_path: Path) -> None:
    """``datasets`` alone would answer all three from one cache."""
    assert task(folder).load()["train"]["label"][:] == [0, 1, 1, 0]
    namesake = shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    for place, labels in ((namesake, [1, 1]), (folder, [0, 0])):
        file = place / "toy" / "train-00000-of-00001.parquet"
        Dataset.from_dict(rows(labels)).to_parquet(str(file))
        assert task(place).load()["train"]["label"][:] == labels


def test_splits_may_be_renamed_and_more_than_two(folder: Path) -> None:
    splits = {"train": "validation", "validation": "train", "validation_extra": "train"}
    data = task(folder, splits=splits).load()
    assert {key: len(part) for key, part in data.items()} == {
        "train": 2,
        "validation": 4,
        "validation_extra": 4,
    }


def test_fields_from_hydra_become_plain(folder: Path) -> None:
    given = OmegaConf.create({"columns": ["sentence"], "metrics": ["f1", "accuracy"]})
    made = task(folder, columns=given.columns, metrics=given.metrics)
    assert made.columns == ("sentence",)
    assert made.metrics == ("f1", "accuracy")
    assert made.headline == "f1"
    assert not made.is_regression
    assert hash(made) == hash(task(folder, metrics=("f1", "accuracy")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "task.name"),
        ({"columns": []}, "task.columns"),
        ({"columns": "sentence"}, "task.columns"),
        ({"columns": ["a", "b", "c"]}, "task.columns"),
        ({"columns": ["a", "a"]}, "task.columns"),
        ({"num_labels": 0}, "task.num_labels"),
        ({"num_labels": "2"}, "task.num_labels"),
        ({"metrics": []}, "task.metrics"),
        ({"metrics": ["bleu"]}, "known: .*matthews"),
        ({"metrics": ["pearson"]}, "does not suit classification"),
        ({"metrics": ["accuracy"], "num_labels": 1}, "does not suit regression"),
        ({"metrics": ["f1"], "num_labels": 3}, "task.num_labels is 3"),
        ({"path": ""}, "task.path"),
        ({"splits": {"train": "train"}}, "task.splits .*validation"),
        ({"splits": "train"}, "task.splits must be a mapping such as .*, not 'train'"),
    ],
)
def test_senseless_fields_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        task(fields.pop("path", "a/b"), **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "mnli"}, r"'mnli' not found. Available: \['toy', 'other'\]"),
        ({"name": "other"}, r"no split 'train', needed for train; it has: \['validation'\]"),
        ({"columns": ["sentence", "question"]}, r"no column \['question'\]; it has: .*sentence"),
        ({"splits": {"train": "train", "validation": "test"}}, "2 rows have label -1"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        task(folder, **fields).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", ["load", "fingerprint"])
def test_missing_folder(tmp_path: Path, call: str) -> None:
    for path in (tmp_path / "nowhere", "./nowhere", "no/such/where"):
        with pytest.raises(ValueError, match=r"there is no folder .*(nowhere|no/such/where)"):
            getattr(task(path), call)()


def test_missing_files(folder: Path) -> None:
    shutil.rmtree(folder / "toy")
    with pytest.raises(ValueError, match="task toy: "):
        task(folder).load()


@pytest.mark.parametrize(
    ("labels", "num_labels", "message"),
    [
        ([0, 2], 2, "1 labels are not 0 to 1"),
        ([0.0, 1.0], 2, "labels are float64"),
        ([0, None], 2, "column 'label' is empty in 1 rows"),
        ([0.5, float("nan")], 1, "1 labels are not finite"),
        ([0.5, -1.0], 1, "1 rows have label -1"),
    ],
)
def test_bad_labels(tmp_path: Path, labels: list[Any], num_labels: int, message: str) -> None:
    path = write_folder(tmp_path, {"toy": {"train": rows(labels), "validation": rows([0, 1])}})
    metrics = ["pearson"] if num_labels == 1 else ["accuracy"]
    with pytest.raises(ValueError, match=message):
        task(path, num_labels=num_labels, metrics=metrics).load()


def test_empty_split(folder: Path) -> None:
    file = folder / "toy" / "train-00000-of-00001.parquet"
    Dataset.from_parquet(str(file)).select([]).to_parquet(str(file))
    with pytest.raises(ValueError, match=r"task toy: .*\"train\" corresponds to no data"):
        task(folder).load()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_damaged_file(folder: Path, split: str) -> None:
    file = folder / "toy" / f"{split}-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"task toy: data.path {folder}: {file} cannot be read: "):
        task(folder).load()


def test_file_without_rows(folder: Path) -> None:
    file = folder / "toy" / "validation-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(ValueError, match=f"task toy: data.path {folder}: {file} has no rows"):
        task(folder).load()


def test_missing_text(tmp_path: Path) -> None:
    bad: dict[str, list[Any]] = {"sentence": ["a", None], "label": [0, 1]}
    path = write_folder(tmp_path, {"toy": {"train": bad, "validation": bad}})
    with pytest.raises(ValueError, match="column 'sentence' is empty in 1 rows"):
        task(path).load()


def test_fingerprint_is_of_the_content_alone(folder: Path, tmp_path: Path) -> None:
    original = task(folder).fingerprint()
    copy = shutil.copytree(folder, tmp_path / "copy")
    train = copy / "toy" / "train-00000-of-00001.parquet"
    os.utime(train, (0, 0))
    shutil.rmtree(copy / "other")
    (copy / "README.md").write_text((copy / "README.md").read_text().replace(OTHER, ""))
    assert task(copy).fingerprint() == original
    Dataset.from_dict(rows([0, 1, 1, 1])).to_parquet(str(train))
    changed = task(copy).fingerprint()
    assert changed != original
    swapped = {"train": "validation", "validation": "train"}
    assert task(copy, splits=swapped).fingerprint() not in {original, changed}


def test_hub_is_named_by_its_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert task("nyu-mll/glue").fingerprint() == "nyu-mll/glue@main"
    assert task("nyu-mll/glue", revision="abc").fingerprint() == "nyu-mll/glue@abc"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("down"), "no network: the hub's nyu-mll/glue .*data.path may be"),
        (datasets.exceptions.DatasetNotFoundError("gone\nindeed"), "gone, .*data.path may be"),
    ],
)
def test_hub_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, message: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(ValueError, match=message) as caught:
        task("nyu-mll/glue").load()
    assert "\n" not in str(caught.value)


def test_no_progress_bars_for_a_local_folder(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    task(folder).load()
    assert capfd.readouterr().err == ""
    assert not datasets.are_progress_bars_disabled()


# ---- the shipped configs and the real data


def shipped(config: Path, path: str) -> GlueTask:
    whole = OmegaConf.create({"data": {"path": path, "revision": None}})
    whole.task = OmegaConf.load(config)
    made = instantiate(whole.task)
    assert isinstance(made, GlueTask)
    return made


def glue_configs() -> list[Path]:
    return [file for file in CONFIGS if "glue.GlueTask" in file.read_text()]


def test_all_eight_tasks_are_shipped() -> None:
    names = {file.stem for file in glue_configs()}
    assert names >= {"cola", "sst2", "stsb", "mrpc", "qqp", "mnli", "qnli", "rte"}


@pytest.mark.parametrize("config", glue_configs(), ids=lambda file: file.stem)
def test_shipped_config(config: Path) -> None:
    made = shipped(config, "nyu-mll/glue")
    assert made.name == config.stem
    assert made.path == "nyu-mll/glue"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not here")
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cola", (8551, 1043)),
        ("sst2", (67349, 872)),
        ("stsb", (5749, 1500)),
        ("mrpc", (3668, 408)),
        ("rte", (2490, 277)),
    ],
)
def test_real_data(name: str, sizes: tuple[int, int]) -> None:
    made = shipped(CHECKOUT / "conf" / "task" / f"{name}.yaml", str(SHARED))
    data = made.load()
    assert (len(data["train"]), len(data["validation"])) == sizes
    assert len(made.fingerprint()) == 64


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not here")
@pytest.mark.parametrize(
    ("name", "message"), [("qnli", "no split 'train'"), ("mnli", "'mnli' not found")]
)
def test_real_data_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shipped(CHECKOUT / "conf" / "task" / f"{name}.yaml", str(SHARED)).load()
