"""IMDb: what is held out and drawn, and its shipped config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from hydra.utils import instantiate

from aaa.data.imdb import ImdbTask
from aaa.experiments.configs import compose_config
from tests.data.test_glue import SHARED, write_folder

REAL = SHARED.parent / "imdb"
TRAIN = [f"review {number}" for number in range(20)]
TEST = [f"test {number}" for number in range(10)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Laid out as the hub's: sorted by label, with reviews that have none."""
    splits: dict[str, dict[str, list[Any]]] = {
        "train": {"text": TRAIN, "label": [0] * 10 + [1] * 10},
        "test": {"text": TEST, "label": [0] * 5 + [1] * 5},
        "unsupervised": {"text": ["?"], "label": [-1]},
    }
    return write_folder(tmp_path / "imdb", {"plain_text": splits})


def task(folder: Path, **fields: Any) -> ImdbTask:
    splits = {"train": "train", "test": "test"}
    if not fields.get("held_out"):
        splits["validation"] = "test"
    given = {"name": "imdb", "columns": ["text"], "num_labels": 2, "metrics": ["accuracy"]}
    return ImdbTask(**{**given, "path": str(folder), "splits": splits, **fields})


def test_reviews_are_held_out(folder: Path) -> None:
    data = task(folder, held_out=6).load()
    assert list(data) == ["train", "validation", "test"]
    assert {key: str(split.split) for key, split in data.items()} == {key: key for key in data}
    train, held_out = data["train"]["text"][:], data["validation"]["text"][:]
    assert len(held_out) == 6
    assert sorted(train + held_out) == sorted(TRAIN)
    assert len(set(data["validation"]["label"][:])) == 2  # of both kinds, though sorted by kind
    for split in ("train", "validation"):
        for text, label in zip(data[split]["text"], data[split]["label"], strict=True):
            assert label == int(int(text.split()[1]) >= 10)
    assert data["test"]["text"][:] == TEST


def test_draws_repeat_and_follow_their_seed(folder: Path) -> None:
    first, same, other = (
        task(folder, held_out=6, seed=seed).load()["validation"]["text"][:] for seed in (0, 0, 1)
    )
    assert first == same != other


def test_the_benchmarks_splits(folder: Path) -> None:
    data = task(folder, splits={"train": "train", "validation": "test", "test": None}).load()
    assert list(data) == ["train", "validation"]
    assert data["train"]["text"][:] == TRAIN
    assert data["validation"]["text"][:] == TEST


def test_fewer_reviews(folder: Path) -> None:
    limits = {"train": 8, "validation": 100, "test": 3}
    data = task(folder, held_out=6, limits=limits).load()
    assert {key: len(split) for key, split in data.items()} == {
        "train": 8,
        "validation": 6,
        "test": 3,
    }
    assert len(set(data["train"]["label"][:])) == 2
    assert set(data["train"]["text"][:]).isdisjoint(data["validation"]["text"][:])


def test_fingerprint_holds_what_is_drawn(folder: Path) -> None:
    variants = [
        task(folder),
        task(folder, held_out=6),
        task(folder, held_out=5),
        task(folder, held_out=6, seed=1),
        task(folder, held_out=6, limits={"train": 4}),
        task(folder, held_out=6, limits={"train": 5}),
    ]
    assert len({variant.fingerprint() for variant in variants}) == len(variants)
    assert task(folder, seed=1).fingerprint() == task(folder).fingerprint()  # nothing is drawn


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"held_out": -1}, "task.held_out must be 0 or more"),
        ({"held_out": 20}, "task.held_out=20, but there are 20 reviews"),
        (
            {"held_out": 2, "splits": {"train": "train", "validation": "test"}},
            "held_out=2 makes the split validation, .* not 'test'",
        ),
        ({"splits": {"train": "train"}}, "task.splits must name a split for .*validation"),
        ({"limits": {"dev": 3}}, r"task.limits: split 'dev' is unknown; known: train"),
        ({"limits": {"train": 0}}, "task.limits.train must be 1 or more, not 0"),
        ({"configuration": "other"}, r"'other' not found. Available: \['plain_text'\]"),
    ],
)
def test_senseless_fields_are_named(folder: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(folder, **fields).load()


def test_the_shipped_config() -> None:
    made = instantiate(compose_config(["scale=small", "task=imdb"]).task)
    assert made.path == "stanfordnlp/imdb"
    assert made.splits == {"train": "train", "test": "test"}
    assert made.held_out == 2500


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data is not here")
def test_real_data() -> None:
    config = compose_config(["scale=small", "task=imdb", f"data.path={REAL}"])
    data = instantiate(config.task).load()
    assert {key: len(split) for key, split in data.items()} == {
        "train": 22_500,
        "validation": 2_500,
        "test": 25_000,
    }
    assert sum(data["test"]["label"][:]) == 12_500
