"""What is measured, and that it is what it is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from aaa import Axis, Global, Local, load_sparse, sparsify, sparsity
from aaa.deploy import bench as module
from aaa.deploy.bench import Cost, bench
from aaa.saved import load_dense
from tests.conftest import EncoderFactory


@pytest.fixture
def folder(make_encoder: EncoderFactory, tmp_path: Path) -> Path:
    sparsify(make_encoder(), Local(1) | Global(1)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_costs_of_every_layer_and_the_whole(
    folder: Path, batch: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    sparse, dense = load_sparse(folder), load_dense(folder)
    ticks = iter(range(1, 1000))
    monkeypatch.setattr(module, "seconds", lambda call, device: (call(), next(ticks))[1])
    *_, costs = bench(sparse, dense, [batch, batch], rounds=3)
    # In turn: dense 1, 3, 5, sparse 2, 4, 6 for the first layer, then on; medians add up.
    per_batch = 6 * (len(costs.layers) + 1)
    for number, layer in enumerate([*costs.layers, costs.whole]):
        first = 6 * number
        assert layer.seconds == {
            "dense": 2 * (first + 3) + per_batch, "sparse": 2 * (first + 4) + per_batch
        }  # fmt: skip
        assert min(layer.peak_bytes.values()) > 0
    sparse(**batch)
    assert sum(costs.sparsity) / len(costs.sparsity) == pytest.approx(float(sparsity(sparse)))


def test_the_layers_calls_are_those_of_the_model(folder: Path, batch: dict[str, Tensor]) -> None:
    """Dense: what the dense model's first layer computes; sparse: what the executor does."""
    sparse, dense = load_sparse(folder, executor="dense"), load_dense(folder)
    seen: list[Tensor] = []
    attention = dense.bert.encoder.layer[0].attention.self
    attention.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    with torch.inference_mode():
        call = module._calls(sparse, batch)[0]
        dense(**batch)
        real = batch["attention_mask"].bool()
        by_sdpa = call.dense().transpose(1, 2).flatten(2)
        torch.testing.assert_close(by_sdpa[real], seen[0][real])
        assert (call.sparse()[0].transpose(1, 2).flatten(2) - by_sdpa)[real].abs().max() > 1e-4


def test_load_dense_is_full_attention_with_the_same_weights(
    make_encoder: EncoderFactory, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    expected = make_encoder()(**batch).logits
    sparsify(make_encoder(), Axis() | Local(0)).save_pretrained(tmp_path)
    dense = load_dense(tmp_path)
    torch.testing.assert_close(dense(**batch).logits, expected)
    assert not dense.training
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_dense(tmp_path / "nowhere")


def test_ratio() -> None:
    cost = Cost({"dense": 6.0, "sparse": 2.0}, {"dense": 5, "sparse": 0})
    assert cost.ratio("seconds") == 3
    assert str(cost.ratio("peak_bytes")) == "nan"
