"""``save_pretrained`` and ``load_sparse``: the same model, or a clear error."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from aaa import Axis, Global, Local, Pattern, gate_parameters, load_sparse, sparsify
from aaa.masks import SparseMask
from aaa.models.pretrained import PretrainedEncoder
from aaa.patterns import LayerInput
from aaa.record import KEY
from aaa.sparse import sparse_layers
from tests.conftest import EncoderFactory
from tests.encoders import randomise_gates
from tests.patterns.test_spec import EXAMPLES, SHIPPED

Batch = dict[str, Tensor]


@torch.no_grad()
def logits(model: Any, batch: Batch) -> Tensor:
    return model(**batch).logits


@pytest.fixture
def saved(make_encoder: EncoderFactory, tmp_path: Path) -> Path:
    """A saved BERT under Axis | Local(2), its gates drawn at random."""
    model = sparsify(make_encoder(), Axis() | Local(2))
    randomise_gates(model)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


# The same model


def test_every_family(
    make_encoder: EncoderFactory, family: str, batch: Batch, tmp_path: Path
) -> None:
    model = sparsify(make_encoder(family), Axis() | Local(1) | Global(1), "dense")
    randomise_gates(model)
    model.train().save_pretrained(tmp_path)
    twin = load_sparse(tmp_path)
    assert type(twin) is type(model)
    assert not twin.training
    assert {layer.executor for layer in sparse_layers(twin)} == {"dense"}
    assert torch.equal(logits(twin, batch), logits(model.eval(), batch))


@pytest.mark.parametrize("pattern", [*SHIPPED.values(), *EXAMPLES], ids=str)
def test_every_pattern(
    make_encoder: EncoderFactory, pattern: Pattern, batch: Batch, tmp_path: Path
) -> None:
    model = sparsify(make_encoder(), pattern)
    randomise_gates(model)
    model.save_pretrained(tmp_path)
    twin = load_sparse(tmp_path)
    assert twin.state_dict().keys() == model.state_dict().keys()
    assert all(map(torch.equal, twin.state_dict().values(), model.state_dict().values()))
    if "heads" in pattern.wants:  # parses of the texts
        keep_BN = batch["attention_mask"].bool()
        heads_BN = torch.arange(12).expand_as(keep_BN).masked_fill(~keep_BN, -1)
        batch = {**batch, "syntax_heads": heads_BN}
    assert torch.equal(logits(twin, batch), logits(model, batch))


def test_images(tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16}
    config = transformers.ViTConfig(**shape, intermediate_size=32, patch_size=4)
    model = sparsify(transformers.ViTForImageClassification(config).eval(), Axis() | Local(1))
    randomise_gates(model)
    model.save_pretrained(tmp_path)
    images = {"pixel_values": torch.randn(2, 3, 16, 16)}
    assert torch.equal(logits(load_sparse(tmp_path), images), logits(model, images))


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForTokenClassification", "Model"])
def test_other_heads(
    make_encoder: EncoderFactory, head: str, batch: Batch, tmp_path: Path
) -> None:
    model = sparsify(make_encoder(head=head), Axis())
    randomise_gates(model)
    model.save_pretrained(tmp_path)
    twin = load_sparse(tmp_path)
    with torch.no_grad():
        assert torch.equal(twin(**batch)[0], model(**batch)[0])


def test_without_its_head(saved: Path, batch: Batch) -> None:
    whole, body = load_sparse(saved), load_sparse(saved, transformers.BertModel)
    assert type(body) is transformers.BertModel
    with torch.no_grad():
        expected = whole.bert(**batch).last_hidden_state
        assert torch.equal(body(**batch).last_hidden_state, expected)


def test_shards_and_sixteen_bits(
    make_encoder: EncoderFactory, batch: Batch, tmp_path: Path
) -> None:
    model = sparsify(make_encoder().bfloat16(), Axis())
    randomise_gates(model)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    twin = load_sparse(tmp_path)
    assert twin.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in gate_parameters(twin)} == {torch.float32}
    assert torch.equal(logits(twin, batch), logits(model, batch))


def test_a_copy_beside_the_weights_is_not_read(saved: Path) -> None:
    stray = {name: weight + 1 for name, weight in load_file(saved / "model.safetensors").items()}
    before = load_sparse(saved).state_dict()
    save_file(stray, saved / "model_backup.safetensors", metadata={"format": "pt"})
    after = load_sparse(saved).state_dict()
    assert all(map(torch.equal, after.values(), before.values()))


def test_saved_twice(saved: Path, batch: Batch, tmp_path: Path) -> None:
    model = load_sparse(saved)
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load_sparse(tmp_path / "again"), batch), logits(model, batch))


def test_another_executor(saved: Path, batch: Batch) -> None:
    model = load_sparse(str(saved), executor="dense")
    assert {layer.executor for layer in sparse_layers(model)} == {"dense"}
    torch.testing.assert_close(logits(model, batch), logits(load_sparse(saved), batch))
    with pytest.raises(ValueError, match="executor 'fast' is unknown"):
        load_sparse(saved, executor="fast")


def test_gates_that_layers_share_are_saved_once(
    make_encoder: EncoderFactory, batch: Batch, tmp_path: Path
) -> None:
    model = sparsify(make_encoder(), Axis())
    first, second = (layer.pattern for layer in sparse_layers(model))
    second.row = first.row
    randomise_gates(model)
    model.save_pretrained(tmp_path)
    rows = [name for name in load_file(tmp_path / "model.safetensors") if ".row.weight" in name]
    assert len(rows) == 1


def test_config_keeps_one_record(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder(), Axis() | Local(2))
    record = getattr(model.config, KEY)
    assert record["pattern"] == (Axis() | Local(2)).spec()
    assert record["executor"] == "auto"
    assert json.dumps(record)


def test_a_refused_model_has_no_record(make_encoder: EncoderFactory) -> None:
    model = make_encoder("DebertaV2")
    with pytest.raises(ValueError, match="DebertaV2"):
        sparsify(model, Local(1))
    assert not hasattr(model.config, KEY)


# Errors


def test_no_folder(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="there is no model in"):
            load_sparse(place)


def test_a_dense_model(make_encoder: EncoderFactory, tmp_path: Path) -> None:
    make_encoder().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not a sparse model's"):
        load_sparse(tmp_path)


def test_another_version(saved: Path) -> None:
    edit(saved, lambda config: config[KEY].update(format=99, version="7.0"))
    with pytest.raises(ValueError, match=r"aaa 7\.0 in format 99, but this aaa reads format 1"):
        load_sparse(saved)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c[KEY]["pattern"]["patterns"][1].update(size=1), "changed after it was saved"),
        (lambda c: c[KEY].update(pattern={"pattern": "Full"}), "changed after it was saved"),
        (lambda c: c[KEY].pop("digest"), "changed after it was saved"),
        (lambda c: c[KEY].pop("format"), "format None"),
        (lambda c: c.update({KEY: "Local(2)"}), "format None"),
        (lambda c: c[KEY].update(format=True), "format True, but this aaa reads format 1"),
        (lambda c: c[KEY].update(format="1"), "format '1', but this aaa reads format 1"),
        (lambda c: c[KEY].update(executor="fast"), "executor 'fast' is unknown"),
        (lambda c: c.update(architectures=["os"]), "class 'os' is not one of transformers"),
        (lambda c: c.update(architectures=[3]), "class '3' is not one of transformers"),
        (lambda c: c.update(architectures=None), "class 'none' is not one of transformers"),
        (lambda c: c.update(num_hidden_layers=3), "weights are missing: .*layer.2"),
        (lambda c: c.update(num_hidden_layers=1), "has weights that BertForSeq.* has not"),
        (lambda c: c.update(intermediate_size=20), "cannot be loaded"),
        (lambda c: c.update(model_type="nobody"), "cannot be loaded"),
        (lambda c: c.update(hidden_act="nope"), "not suit BertForSeq.*: KeyError: 'nope'"),
    ],
)
def test_a_changed_config(saved: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    edit(saved, change)
    with pytest.raises(ValueError, match=said) as caught:
        load_sparse(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop(next(n for n in w if ".row.bias" in n)), "gates .* missing: .*row.bias"),
        (lambda w: w.pop("classifier.bias"), "weights are missing: classifier.bias"),
        (lambda w: w.update(extra=torch.ones(1)), "has weights that .* has not: extra"),
        (
            lambda w: w.update({"a.sparse.pattern.b": torch.ones(1)}),
            "gates that its pattern has not",
        ),
        (
            lambda w: w.update({n: torch.ones(3) for n in w if ".column.bias" in n}),
            r"gates .*column.bias are of shape \(3,\), but its pattern has \(1,\)",
        ),
        (
            lambda w: w.update({n: w[n] * torch.nan for n in w if ".column.bias" in n}),
            "gates .*column.bias are not finite",
        ),
        (
            lambda w: w.update({n: w[n] / 0 for n in w if ".column.bias" in n}),
            "gates .*column.bias are not finite",
        ),
        (
            lambda w: w.update({n: w[n].int() for n in w if ".column.bias" in n}),
            r"gates .*column.bias are torch\.int32, but its pattern has torch\.float32",
        ),
        (
            lambda w: w.update({"classifier.bias": w["classifier.bias"] * torch.nan}),
            "weights are not finite: classifier.bias",
        ),
        (lambda w: w.update({"classifier.bias": torch.ones(9)}), "cannot be loaded"),
    ],
)
def test_changed_weights(saved: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    weights = load_file(saved / "model.safetensors")
    change(weights)
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=said):
        load_sparse(saved)


def test_a_class_of_another_kind(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"model cannot be loaded: .* not suit GPT2Model: ") as e:
        load_sparse(saved, model_class=transformers.GPT2Model)
    assert str(saved) in str(e.value)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_half_a_file(saved: Path, size: int) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_sparse(saved)


def test_no_weights_and_no_pickles(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    torch.save(weights, saved / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_sparse(saved)


class EverySecond(Pattern):
    """A user's own pattern, with an argument that is no plain value."""

    def __init__(self, step: Tensor) -> None:
        super().__init__()
        self.offset = step

    def forward(self, inputs: LayerInput) -> SparseMask:
        diagonals_BHK = (torch.arange(20) % int(self.offset) == 0).float()[None, None]
        return SparseMask(inputs.keep_BN, diagonals_BHK=diagonals_BHK)


def test_a_pattern_of_ones_own(make_encoder: EncoderFactory, batch: Batch, tmp_path: Path) -> None:
    pattern = EverySecond(torch.tensor(2)) | Axis()
    model = sparsify(make_encoder(), pattern)
    randomise_gates(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"EverySecond is not one of aaa\.patterns.* pass pattern="
    ):
        load_sparse(tmp_path)
    assert torch.equal(logits(load_sparse(tmp_path, pattern=pattern), batch), logits(model, batch))
    with pytest.raises(ValueError, match="gates that its pattern has not"):
        load_sparse(tmp_path, pattern=Local(1))


# As an encoder to fine-tune


def test_plain_transformers_leave_the_gates_out(saved: Path) -> None:
    model = transformers.AutoModel.from_pretrained(saved)
    assert not sparse_layers(model)


@pytest.mark.parametrize("num_labels", [1, 3])
def test_taken_like_any_other_encoder(
    saved: Path, num_labels: int, batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = PretrainedEncoder(path=str(saved)).classifier(num_labels)
    assert not sparse_layers(model)
    assert not hasattr(model.config, KEY)
    assert "saved sparse: the gates of its Union are left out" in caplog.text
    head = "none" if num_labels == 3 else "classifier.bias, classifier.weight"
    assert f"new weights on top of {saved}: {head}" in caplog.text
    word_embeddings = load_file(saved / "model.safetensors")[
        "bert.embeddings.word_embeddings.weight"
    ]
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, word_embeddings)
    assert logits(sparsify(model, Local(1)), batch).shape[-1] == num_labels


def test_a_body_of_the_wrong_shape_is_not_taken(saved: Path) -> None:
    edit(saved, lambda config: config.update(intermediate_size=20))
    with pytest.raises(ValueError, match=r"model.path: .* does not fit config.json"):
        PretrainedEncoder(path=str(saved)).classifier(3)
