"""The metrics against sklearn and scipy, on random and on degenerate answers, and over ranks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics
from torch import Tensor, multiprocessing

from aaa.data.metrics import build_metrics
from aaa.data.task import CLASSIFICATION_METRICS, METRICS, REGRESSION_METRICS


def scores(
    names: Sequence[str], num_labels: int, logits: Tensor, labels: Tensor
) -> dict[str, float]:
    """Our figures, from several batches and without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = build_metrics(names, num_labels)
        for part in torch.arange(len(labels)).split(7):
            metrics.update(logits[part], labels[part])
        return {name: float(value) for name, value in metrics.compute().items()}


@settings(deadline=None, max_examples=50)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60),
    num_labels=st.sampled_from([2, 3]),
)
def test_classification_is_sklearns(pairs: list[tuple[int, int]], num_labels: int) -> None:
    labels, predictions = (np.array(side) % num_labels for side in zip(*pairs, strict=True))
    logits = 5 * torch.nn.functional.one_hot(torch.tensor(predictions), num_labels).float() - 1
    names = [name for name in CLASSIFICATION_METRICS if name != "f1" or num_labels == 2]
    found = scores(names, num_labels, logits, torch.tensor(labels))
    assert found["accuracy"] == pytest.approx((labels == predictions).mean(), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sklearn_metrics.matthews_corrcoef(labels, predictions)
        assert found["matthews"] == pytest.approx(expected, abs=1e-9)
        if num_labels == 2:
            expected = sklearn_metrics.f1_score(labels, predictions, zero_division=0)
            assert found["f1"] == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(
    pairs=st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 5)), min_size=2, max_size=60),
    noise=st.sampled_from([0.0, 0.01]),
    column=st.booleans(),
)
def test_regression_is_scipys(pairs: list[tuple[int, int]], noise: float, column: bool) -> None:
    x, y = np.array(pairs, dtype=np.float32).T
    x = (x / 3 + noise * np.random.default_rng(0).normal(size=len(x))).astype(np.float32)
    logits = torch.tensor(x)[:, None] if column else torch.tensor(x)
    found = scores(REGRESSION_METRICS, 1, logits, torch.tensor(y))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found == {"spearman": 0, "pearson": 0}
        return
    pearson = stats.pearsonr(x.astype(np.float64), y.astype(np.float64)).statistic
    assert found["pearson"] == pytest.approx(pearson, abs=1e-9)
    assert found["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


def test_constant_answers_score_zero_quietly() -> None:
    labels = torch.tensor([0, 1, 1, 0, 1])
    always_0 = torch.tensor([[1.0, -1.0]] * 5)
    assert scores(["matthews", "f1"], 2, always_0, labels) == {"matthews": 0, "f1": 0}
    assert scores(["matthews"], 2, always_0, torch.zeros(5, dtype=torch.int64))["matthews"] == 0
    # 0.1 has no exact mean in floating point: a variance would come out above 0
    constant = torch.full((49, 1), 0.1)
    found = scores(REGRESSION_METRICS, 1, constant, torch.arange(49.0))
    assert found == {"spearman": 0, "pearson": 0}


def test_nan_answers_show() -> None:
    logits = torch.tensor([0.1, math.nan, 0.3])
    found = scores(REGRESSION_METRICS, 1, logits, torch.arange(3.0))
    assert all(math.isnan(value) for value in found.values())


def test_large_offsets_do_not_cancel() -> None:
    x = 1000 + torch.arange(2000.0) / 1000
    assert scores(["pearson"], 1, x, torch.arange(2000.0))["pearson"] == pytest.approx(1, abs=1e-4)


def test_half_precision_logits() -> None:
    logits = torch.tensor([[0.5], [1.5], [2.5]], dtype=torch.bfloat16)
    assert scores(["pearson"], 1, logits, torch.arange(3.0))["pearson"] == pytest.approx(1)


def test_every_known_name_and_no_other() -> None:
    for name in METRICS:
        assert list(build_metrics([name], 1 if name in REGRESSION_METRICS else 2)) == [name]
    with pytest.raises(ValueError, match=r"metric 'bleu' is unknown; known: .*f1"):
        build_metrics(["bleu"], 2)


def test_reset_forgets() -> None:
    metrics = build_metrics(["f1", "accuracy"], 2)
    metrics.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    metrics.compute()
    metrics.reset()
    metrics.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert {name: float(value) for name, value in metrics.compute().items()} == {
        "f1": 1,
        "accuracy": 1,
    }


def answers(num_labels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(11, num_labels, generator=generator)
    if num_labels == 1:
        return logits, torch.rand(11, generator=generator)
    return logits, torch.randint(num_labels, (11,), generator=generator)


def one_rank(rank: int, folder: str) -> None:
    """Two ranks: 7 and 4 examples, then 11 and none."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    for num_labels, names in ((2, CLASSIFICATION_METRICS), (1, REGRESSION_METRICS)):
        for cut in (7, 11):
            share = slice(0, cut) if rank == 0 else slice(cut, 11)
            logits, labels = (part[share] for part in answers(num_labels))
            metrics = build_metrics(names, num_labels)
            if len(labels):
                metrics.update(logits, labels)
            found = {name: float(value) for name, value in metrics.compute().items()}
            torch.save(found, Path(folder) / f"{num_labels}-{cut}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_together_score_as_one_process(tmp_path: Path) -> None:
    multiprocessing.spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    for num_labels, names in ((2, CLASSIFICATION_METRICS), (1, REGRESSION_METRICS)):
        expected = scores(names, num_labels, *answers(num_labels))
        files = sorted(tmp_path.glob(f"{num_labels}-*.pt"))
        assert len(files) == 4
        for file in files:
            assert torch.load(file) == pytest.approx(expected, abs=1e-12)
