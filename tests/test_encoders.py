"""Each encoder family that is served: the original under Full, sparse under every pattern."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from omegaconf import OmegaConf
from torch import Tensor, nn

from aaa import (
    Axis,
    Full,
    Local,
    Pattern,
    gate_parameters,
    latest_masks,
    sparsify,
    sparsity,
    sparsity_loss,
)
from aaa.experiments.plan import build_pattern, named_pattern
from aaa.patterns import LayerInput, LayerSite
from aaa.places import config_folder
from aaa.sparse import sparse_layers
from tests.conftest import EncoderFactory
from tests.encoders import (
    COUNT_PADDING,
    NORMALISED_OR_BOTTLENECK,
    REFUSED,
    SERVED,
    SERVED_IMAGES,
    SERVED_TOO,
    VOCABULARY,
    Batch,
    build,
    hidden_states,
    randomise_gates,
    real,
)
from tests.reference import keep_of

EXECUTORS = ["dense", "sdpa", "auto"]
ALL = {**SERVED, **SERVED_TOO, **SERVED_IMAGES}


def encoder(family: str) -> Any:
    if not hasattr(transformers, f"{family}Model"):
        pytest.skip(f"this version of transformers has no {family}")
    return build(family, ALL[family])


def texts(lengths: list[int], left: bool) -> Batch:
    keep_BN = keep_of(lengths, left)
    ids_BN = torch.randint(5, VOCABULARY, keep_BN.shape)
    return {"input_ids": ids_BN.masked_fill(~keep_BN, 1), "attention_mask": keep_BN.long()}


def some_input(family: str) -> Batch:
    if family in SERVED_IMAGES:
        return {"pixel_values": torch.randn(2, 3, 16, 16)}
    return texts([12, 9, 5], left=False)


@torch.no_grad()
def states(model: Any, batch: Batch) -> Tensor:
    """The last hidden states of real tokens."""
    states_BND = model(**batch).last_hidden_state
    return real(batch, states_BND) if "attention_mask" in batch else states_BND


class ClosedIn(Pattern):
    """Full attention but in one self-attention, where each token sees itself alone."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def bind(self, site: LayerSite) -> Pattern:
        return Local(0) if site.layer == self.layer else Full()


# Every family


@pytest.mark.parametrize("executor", ["dense", "sdpa"])
@pytest.mark.parametrize("name", ALL)
def test_full_is_the_original(name: str, executor: str) -> None:
    original = encoder(name)
    model = sparsify(copy.deepcopy(original), Full(), executor)
    inputs = [some_input(name)]
    if name not in SERVED_IMAGES:
        inputs += [{"input_ids": inputs[0]["input_ids"]}, texts([20, 13, 1], left=True)]
    for batch in inputs:
        actual, expected = states(model, batch), states(original, batch)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_each_layer_obeys_its_mask(name: str) -> None:
    original = encoder(name)
    batch = some_input(name)
    expected = states(original, batch)
    firsts = [0] if name == "Albert" else [0, 1]  # whose layers share one self-attention
    for layer in firsts:
        model = sparsify(copy.deepcopy(original), ClosedIn(layer))
        assert (states(model, batch) - expected).abs().max() > 1e-3
        rho = [mask.sparsity().mean().item() for mask in latest_masks(model)]
        assert len(rho) == 2
        assert rho[layer] == max(rho) > 0.5


@pytest.mark.parametrize("name", ALL)
def test_closed_tokens_see_nothing_of_each_other(name: str) -> None:
    model = sparsify(encoder(name), Local(0))
    batch = some_input(name) if name in SERVED_IMAGES else texts([12, 12], left=False)
    changed = {key: value.clone() for key, value in batch.items()}
    if name in SERVED_IMAGES:
        token = -1
        changed["pixel_values"][..., -1, -1] += 1
    else:
        token = 2
        changed["input_ids"][:, token] = 5 + (changed["input_ids"][:, token] - 4) % 55
    with torch.no_grad():
        before, after = (model(**one).last_hidden_state for one in (batch, changed))
    differs_BN = (before - after).abs().amax(-1)
    assert (differs_BN[:, token] > 1e-3).all()
    differs_BN[:, token] = 0
    assert (differs_BN < 1e-5).all()


# The main families, with a head


@pytest.mark.parametrize("executor", EXECUTORS)
def test_logits_under_full(
    make_encoder: EncoderFactory, family: str, executor: str, batch: Batch
) -> None:
    original, model = make_encoder(family), make_encoder(family)
    assert sparsify(model, Full(), executor) is model
    for inputs in (batch, {"input_ids": batch["input_ids"]}):
        expected, actual = original(**inputs).logits, model(**inputs).logits
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    if family == "ModernBert":  # counts the cells beyond the reach of its own windows as closed
        assert 0 < sparsity(model) < 0.4
    else:
        assert sparsity(model) == 0


def test_gates_read_what_enters_the_self_attention(
    make_encoder: EncoderFactory, family: str, batch: Batch
) -> None:
    model = sparsify(make_encoder(family), Axis())
    seen: list[Tensor] = []
    sparse_layers(model)[0].pattern.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].hidden_BND)
    )
    states = model(**batch, output_hidden_states=True).hidden_states
    width = 8 if family == "MobileBert" else 16
    assert seen[0].shape == (*batch["input_ids"].shape, width)
    if family not in NORMALISED_OR_BOTTLENECK:
        assert torch.equal(seen[0], states[0])


@pytest.mark.parametrize("pattern", [Full(), Axis() | Local(2)], ids=str)
def test_padding_never_leaks(
    make_encoder: EncoderFactory, family: str, pattern: Pattern, batch: Batch
) -> None:
    model = sparsify(make_encoder(family), pattern)
    randomise_gates(model)
    padding = batch["attention_mask"] == 0
    expected, rho = real(batch, hidden_states(model, batch)), sparsity(model)
    if family not in COUNT_PADDING:
        other = {**batch, "input_ids": batch["input_ids"].masked_fill(padding, 17)}
        assert torch.equal(real(batch, hidden_states(model, other)), expected)
    longer = {
        "input_ids": nn.functional.pad(batch["input_ids"], (0, 5), value=1),
        "attention_mask": nn.functional.pad(batch["attention_mask"], (0, 5)),
    }
    torch.testing.assert_close(real(longer, hidden_states(model, longer)), expected)
    assert sparsity(model) == rho


# Every pattern of conf/pattern


NAMES = sorted(path.stem for path in (config_folder() / "pattern").glob("*.yaml"))
# Those that copy from a run can only be had where there is one.
CONFIGS = {
    name: config
    for name in NAMES
    if not OmegaConf.is_missing(config := named_pattern(name, "pattern"), "source")
}
PATTERNS = {name: build_pattern(config) for name, config in CONFIGS.items()}


def side_input(pattern: Pattern, batch: Batch) -> dict[str, Tensor]:
    """A chain as the dependency tree of each text, for the patterns that read one."""
    if "heads" not in pattern.wants:
        return {}
    return {"syntax_heads": torch.zeros_like(batch["input_ids"])}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_trains_a_step(
    make_encoder: EncoderFactory, family: str, pattern: str, batch: Batch
) -> None:
    template = PATTERNS[pattern]
    model = sparsify(make_encoder(family), template).train()
    labels_B = torch.tensor([0, 1, 2, 0])
    output = model(**batch, **side_input(template, batch), labels=labels_B)
    check_a_step(model, output.loss, template)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_trains_a_step_on_images(pattern: str) -> None:
    template = PATTERNS[pattern]
    model = build("ViT", SERVED_IMAGES["ViT"], "ForImageClassification").train()
    images, labels_B = torch.randn(2, 3, 16, 16), torch.tensor([0, 1])
    if template.wants & {"embeddings", "heads"}:  # of words
        with pytest.raises(ValueError, match=re.escape(str(template))):
            sparsify(model, template)(images)
        return
    check_a_step(model, sparsify(model, template)(images, labels=labels_B).loss, template)


def check_a_step(model: Any, loss: Tensor, pattern: Pattern) -> None:
    (loss + sparsity_loss(model, target=0.99)).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert 0 <= sparsity(model) < 1
    gates = gate_parameters(model)
    assert bool(gates) == pattern.learnable
    reached = [gate.grad.abs().sum() for gate in gates if gate.grad is not None]
    assert len(reached) == len(gates)
    assert not gates or sum(reached) > 0
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


# Encoders with windows of their own


def test_windows_are_found_and_honoured(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder("ModernBert", num_hidden_layers=4), Local(3))
    assert [layer.window for layer in sparse_layers(model)] == [None, 2, 2, None]
    batch = texts([12, 7], left=True)
    hidden_states(model, batch)
    for mask, reach in zip(latest_masks(model), [3, 2, 2, 3], strict=True):
        expected = Local(reach)(LayerInput(batch["attention_mask"].bool()))
        assert torch.equal(mask.dense(), expected.dense())
        assert torch.equal(mask.kept_cells(), expected.kept_cells())


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("local_attention", [0, 2, 7, 16])
def test_modernbert_on_texts_longer_than_its_window(
    make_encoder: EncoderFactory, local_attention: int, left: bool, executor: str
) -> None:
    changes = {"local_attention": local_attention, "num_hidden_layers": 5}
    original, model = (make_encoder("ModernBert", **changes) for _ in range(2))
    sparsify(model, Full(), executor)
    batch = texts([40, 23, 3], left)
    expected, actual = original(**batch).logits, model(**batch).logits
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert sparsity(model) > 0.1


def test_gates_beyond_a_window_get_no_gradient(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder("ModernBert"), Axis(rows=False)).train()
    masks: list[Any] = []
    for layer in sparse_layers(model):
        layer.pattern.register_forward_hook(lambda _, __, mask: masks.append(mask))
    output_BND = model.base_model(**texts([20], left=False)).last_hidden_state
    everywhere, windowed = (mask.columns_BHN for mask in masks)
    reached = torch.autograd.grad(output_BND[0, 19, 0], [everywhere, windowed])
    assert reached[0].count_nonzero() > 10
    assert reached[1][0, 0, :17].count_nonzero() == 0
    assert reached[1][0, 0, 17:].count_nonzero() > 0


# The page for users


def test_the_page_lists_what_is_tested_here() -> None:
    page = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (served|refused) \|", page, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert {name for name, verdict in rows if verdict == "served"} == set(ALL)
    assert {name for name, verdict in rows if verdict == "refused"} == set(REFUSED)
