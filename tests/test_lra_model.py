"""LRA's encoder against PyTorch's own layer, and as one of transformers' models."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification

from aaa import (
    Axis,
    Diagonal,
    Full,
    Global,
    InLayers,
    Lexical,
    Local,
    Pattern,
    Random,
    load_sparse,
    sparsify,
    sparsity,
)
from aaa.experiments.environment import peak_memory_bytes, reset_peak_memory
from aaa.lra_model import CLS, LraTextConfig, LraTextForSequenceClassification, sinusoids

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_model(**changes: Any) -> LraTextForSequenceClassification:
    torch.manual_seed(0)
    config = LraTextConfig(**{**SIZES, "intermediate_size": 32, "num_labels": 3, **changes})
    return LraTextForSequenceClassification(config).eval()


@pytest.fixture
def texts() -> dict[str, Tensor]:
    """Texts of 9 and 5 tokens."""
    ids_BN = torch.randint(1, 257, (2, 9), generator=torch.Generator().manual_seed(1))
    ids_BN[:, 0] = CLS
    keep_BN = torch.arange(9) < torch.tensor([[9], [5]])
    return {"input_ids": ids_BN * keep_BN, "attention_mask": keep_BN.long()}


def layers(model: LraTextForSequenceClassification) -> list[Any]:
    return list(model.encoder.layers)


def by_pytorch(model: LraTextForSequenceClassification, texts: dict[str, Tensor]) -> Tensor:
    """The logits by ``nn.TransformerEncoderLayer`` with the same weights."""
    config, encoder = model.config, model.encoder
    hidden_BND = encoder.embeddings.weight[texts["input_ids"]]
    hidden_BND = hidden_BND + sinusoids(hidden_BND)
    for ours in layers(model):
        layer = nn.TransformerEncoderLayer(
            config.hidden_size, config.num_attention_heads, config.intermediate_size, dropout=0,
            activation=partial(F.gelu, approximate="tanh"), layer_norm_eps=1e-6, norm_first=True,
            batch_first=True,
        )  # fmt: skip
        attention = ours.attention
        qkv = torch.cat(
            [part.weight for part in (attention.query, attention.key, attention.value)]
        )
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": qkv, "self_attn.in_proj_bias": torch.zeros(len(qkv)),
                "self_attn.out_proj.weight": attention.output.weight,
                "self_attn.out_proj.bias": torch.zeros(config.hidden_size),
                **{f"linear1.{n}": p for n, p in ours.expand.named_parameters()},
                **{f"linear2.{n}": p for n, p in ours.contract.named_parameters()},
                **{f"norm1.{n}": p for n, p in ours.attention_norm.named_parameters()},
                **{f"norm2.{n}": p for n, p in ours.mlp_norm.named_parameters()},
            }
        )  # fmt: skip
        hidden_BND = layer(hidden_BND, src_key_padding_mask=texts["attention_mask"] == 0)
    first_BD = encoder.norm(hidden_BND)[:, 0]
    head: Any = model.classifier
    return head.out(torch.relu(head.dense(first_BD)))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_is_a_pre_norm_transformer(texts: dict[str, Tensor], implementation: str) -> None:
    model = make_model()
    model.set_attn_implementation(implementation)
    torch.testing.assert_close(model(**texts).logits, by_pytorch(model, texts))


def test_positions_are_those_of_the_first_transformer() -> None:
    table_ND = sinusoids(torch.zeros(1, 60, 8))
    for position in (0, 1, 59):
        for pair in range(4):
            angle = position / 10000 ** (2 * pair / 8)
            expected = torch.tensor([math.sin(angle), math.cos(angle)])
            torch.testing.assert_close(table_ND[position, 2 * pair : 2 * pair + 2], expected)


@torch.no_grad()
def test_weights_start_as_in_the_benchmark() -> None:
    model = make_model(hidden_size=64, intermediate_size=128)
    bytes_VD = model.encoder.embeddings.weight
    assert bytes_VD[CLS].abs().max() == 0
    assert bytes_VD[:CLS].std() == pytest.approx(1, abs=0.05)
    bound = math.sqrt(6 / (64 + 128))  # Glorot's, uniform
    assert 0.95 * bound < float(layers(model)[0].expand.weight.abs().max()) <= bound
    head: Any = model.classifier
    assert head.dense.weight.std() == pytest.approx(1 / 8, rel=0.05)
    names = [name for name, _ in layers(model)[0].attention.named_parameters()]
    assert names == [f"{part}.weight" for part in ("query", "key", "value", "output")]


def test_the_defaults_are_the_benchmarks() -> None:
    with torch.device("meta"):
        model = LraTextForSequenceClassification(LraTextConfig())
    layer = 4 * 256 * 256 + 2 * 256 * 1024 + 1024 + 256 + 4 * 256
    head = 256 * 1024 + 1024 + 1024 * 2 + 2
    assert sum(p.numel() for p in model.parameters()) == 258 * 256 + 4 * layer + 512 + head


@torch.no_grad()
def test_sparsify_serves_it(texts: dict[str, Tensor]) -> None:
    dense = make_model()(**texts).logits
    model = sparsify(make_model(), Full())
    torch.testing.assert_close(model(**texts).logits, dense)
    assert sparsity(model) == 0
    local = sparsify(make_model(), Local(1))
    assert not torch.allclose(local(**texts).logits, dense, atol=1e-3)


@torch.no_grad()
def test_without_a_global_token_what_is_far_is_not_seen(texts: dict[str, Tensor]) -> None:
    """Two layers of Local(2) reach 4 tokens from the classification token."""
    changed = {**texts, "input_ids": texts["input_ids"].clone()}
    changed["input_ids"][0, 5] = 77
    local, with_global = (
        sparsify(make_model(), pattern) for pattern in (Local(2), Local(2) | Global(1))
    )
    assert torch.equal(local(**texts).logits, local(**changed).logits)
    assert not torch.allclose(with_global(**texts).logits[0], with_global(**changed).logits[0])


PATTERNS = [
    Axis(per_head=True) | Local(1),
    Diagonal(scope="task") | Global(1),
    Lexical(density=0.4),
    Random(2) | Local(0),
    InLayers(Local(1), "1"),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_learns_under_every_kind_of_pattern(pattern: Pattern, texts: dict[str, Tensor]) -> None:
    model = sparsify(make_model(), pattern).train()
    model(**texts, labels=torch.tensor([0, 2])).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_learns_under_gradient_checkpointing(texts: dict[str, Tensor]) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = sparsify(make_model(dropout=0.0, attention_dropout=0.0), Local(2)).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**texts, labels=torch.tensor([0, 2])).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None
        torch.testing.assert_close(plain, recomputed)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measured on Linux alone")
@pytest.mark.parametrize("pattern", [Local(16) | Global(1), Local(512)], ids=str)
def test_long_texts_never_have_a_whole_map(pattern: Pattern) -> None:
    """A training step on 4,000 bytes takes less memory than one map of N x N floats."""
    length = 4001
    model = sparsify(make_model(num_hidden_layers=1, dropout=0.0), pattern).train()
    for _ in range(2):  # the first time pays for what stays
        reset_peak_memory()
        before = peak_memory_bytes(torch.device("cpu"))
        ids_BN = torch.randint(1, 257, (1, length))
        model(input_ids=ids_BN, labels=torch.tensor([1])).loss.backward()
        taken = peak_memory_bytes(torch.device("cpu")) - before
    assert taken < 4 * length**2


@torch.no_grad()
def test_is_saved_and_loaded(texts: dict[str, Tensor], tmp_path: Path) -> None:
    model = sparsify(make_model(), Axis() | Local(1)).eval()
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(load_sparse(tmp_path)(**texts).logits, model(**texts).logits)


@torch.no_grad()
def test_auto_classes_know_it(texts: dict[str, Tensor], tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(found(**texts).logits, model(**texts).logits)
    hidden = AutoModel.from_pretrained(tmp_path)(**texts).last_hidden_state
    assert hidden.shape == (2, 9, 16)
