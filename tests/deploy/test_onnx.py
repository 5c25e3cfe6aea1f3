"""The exported file against PyTorch, by onnxruntime; and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aaa import (
    Axis,
    Diagonal,
    Global,
    InLayers,
    Lexical,
    Local,
    Pattern,
    Random,
    load_sparse,
    sparsify,
)
from aaa.deploy import onnx as module
from aaa.deploy.onnx import Check, check_installed, export_onnx
from tests.conftest import EncoderFactory
from tests.encoders import IMAGE, SHAPE, build, randomise_gates
from tests.reference import keep_of


@pytest.mark.slow
def test_cells_drawn_at_random(make_encoder: EncoderFactory, tmp_path: Path) -> None:
    """Lengths on both sides of a tile of 128.

    (Weights so large that others would change the output by a tenth.)
    """
    pytest.importorskip("onnxruntime")
    model = make_encoder(num_hidden_layers=1, max_position_embeddings=150, initializer_range=0.2)
    sparsify(model, Local(1) | Global(1) | Random(2)).save_pretrained(tmp_path / "model")
    checks = export_onnx(tmp_path / "model", tmp_path / "model.onnx", longest=140)
    assert {check.tokens for check in checks} == {2, 17, 70, 140}


@pytest.mark.slow
def test_outputs_at_any_length(make_encoder: EncoderFactory, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pattern = Axis(per_head=True) | Diagonal(num_distances=20)
    model = sparsify(make_encoder(num_hidden_layers=1, initializer_range=0.2), pattern)
    randomise_gates(model)
    model.save_pretrained(tmp_path / "model")
    checks = export_onnx(tmp_path / "model", tmp_path / "onnx/model.onnx", longest=40)
    assert {(check.batch, check.tokens) for check in checks} == {
        (batch, tokens) for batch in (1, 3) for tokens in (2, 17, 20, 40)
    }
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(tmp_path / "onnx/model.onnx")
    names = [given.name for given in session.get_inputs()]
    model = load_sparse(tmp_path / "model", executor="dense")
    opened = set()
    for lengths in ([5], [33, 2, 31, 9, 16], [40, 39]):
        keep_BN = keep_of(lengths)
        ids_BN = torch.randint(5, 30, keep_BN.shape).masked_fill(~keep_BN, 0)
        texts = {"input_ids": ids_BN, "attention_mask": keep_BN.long()}
        texts["token_type_ids"] = torch.zeros_like(ids_BN)
        [actual] = session.run(None, {name: texts[name].numpy() for name in names})
        with torch.no_grad():
            expected = model(**texts).logits.numpy()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
        [mask] = [layer.masks[-1] for layer in model.modules() if hasattr(layer, "masks")]
        opened |= set((mask.rows_BHN * keep_BN[:, None]).sum(-1).flatten().tolist())
    assert len(opened) > 3  # the number of rows really differed


@pytest.mark.slow
def test_weights_that_lie_apart_are_found(
    make_encoder: EncoderFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do beyond 1.5 GB, which is set to nothing here."""
    onnxruntime = pytest.importorskip("onnxruntime")
    exporter = pytest.importorskip("torch.onnx._internal.exporter._onnx_program")
    if not hasattr(exporter, "_LARGE_MODEL_THRESHOLD"):
        pytest.skip("this release of torch has another name for it")
    monkeypatch.setattr(exporter, "_LARGE_MODEL_THRESHOLD", 100)
    sparsify(make_encoder(num_hidden_layers=1), Local(1)).save_pretrained(tmp_path / "model")
    export_onnx(tmp_path / "model", tmp_path / "onnx/served.onnx", longest=40)
    files = sorted(path.name for path in (tmp_path / "onnx").iterdir())
    assert files == ["served.onnx", "served.onnx.data"]
    assert onnxruntime.InferenceSession(tmp_path / "onnx/served.onnx").get_inputs()


def test_a_model_that_differs_is_not_kept(
    make_encoder: EncoderFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sparsify(make_encoder(), Axis() | Local(1)).save_pretrained(tmp_path / "model")
    monkeypatch.setattr(module, "write_onnx", lambda model, longest, path: path.touch())
    monkeypatch.setattr(module, "_compare", lambda *_: [Check(1, 2, 0.0), Check(3, 30, 0.01)])
    with pytest.raises(ValueError, match=r"1\.0e-02 .* on 3 texts of 30 tokens"):
        export_onnx(tmp_path / "model", tmp_path / "onnx/model.onnx", longest=40)
    assert not list((tmp_path / "onnx").iterdir())
    monkeypatch.setattr(module, "_compare", lambda *_: [Check(1, 2, float("nan"))])
    with pytest.raises(ValueError, match="nan"):
        export_onnx(tmp_path / "model", tmp_path / "onnx/model.onnx", longest=40)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (Random(density=0.3), "other cells for each length"),
        (Random(1, reading="text") | Global(1), "other cells for each length"),
        (InLayers(Local(density=0.3), "0"), "other cells for each length"),
        (Lexical(size=1), "reads embeddings of each text"),
    ],
)
def test_patterns_that_cannot_be_exported(
    pattern: Pattern, said: str, make_encoder: EncoderFactory, tmp_path: Path
) -> None:
    sparsify(make_encoder(), pattern).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=said):
        export_onnx(tmp_path / "model", tmp_path / "model.onnx", longest=40)


@pytest.mark.parametrize(
    ("family", "shape", "head"),
    [("ViT", IMAGE, "ForImageClassification"), ("Bert", SHAPE, "ForMultipleChoice")],
)
def test_models_that_cannot_be_exported(
    family: str, shape: dict[str, Any], head: str, tmp_path: Path
) -> None:
    sparsify(build(family, shape, head), Local(1)).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=f"^{family}{head} reads "):
        export_onnx(tmp_path / "model", tmp_path / "model.onnx", longest=40)


@pytest.mark.parametrize("longest", [10, 4000])
def test_lengths_that_cannot_be_exported(
    longest: int, make_encoder: EncoderFactory, tmp_path: Path
) -> None:
    sparsify(make_encoder(), Local(1)).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=f"longest={longest}, but this encoder takes"):
        export_onnx(tmp_path / "model", tmp_path / "model.onnx", longest)


def test_what_exporting_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="onnx, onnxscript, onnxruntime"):
        check_installed()


def test_saved_models_serve_with_gates_thresholded(
    make_encoder: EncoderFactory, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """No noise, and no gradient that would keep the fast executors away."""
    model = sparsify(make_encoder(), Axis() | Local(1))
    randomise_gates(model)
    model.save_pretrained(tmp_path)
    served = load_sparse(tmp_path)
    outputs = [served(**batch).logits for _ in range(2)]
    assert torch.equal(*outputs)
    for layer in (layer for layer in served.modules() if hasattr(layer, "masks")):
        [mask] = layer.masks
        assert not mask.needs_gradient
        logits = layer.pattern.patterns[0].row
        assert set(mask.rows_BHN.unique().tolist()) <= {0.0, 1.0}
        assert logits.weight.requires_grad  # thresholded, not frozen
