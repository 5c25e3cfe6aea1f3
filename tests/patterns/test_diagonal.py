from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model

from aaa import Axis, Global, gate_parameters, latest_masks, sparsify, sparsity, sparsity_loss
from aaa.attention.dense import dense_attention
from aaa.patterns import Diagonal, LayerInput, LayerSite, Local, Pattern
from aaa.patterns.gumbel import SINGLE_LOGIT_GAIN
from aaa.sparse import scale_gate_noise, sparse_layers, synchronise_patterns
from tests import reference
from tests.conftest import EncoderFactory
from tests.reference import keep_of, lengths_strategy, padded

Batch = dict[str, torch.Tensor]
SCOPES = ("task", "layer", "head")
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bound(opened: list[set[int]], num_distances: int, seen: int = 0) -> Diagonal:
    """A Diagonal at a layer with these distances open, one set a head."""
    site = LayerSite(0, 4, hidden_size=8, num_heads=len(opened))
    template = Diagonal("head" if len(opened) > 1 else "layer", num_distances)
    diagonal = cast(Diagonal, template.bind(site))
    with torch.no_grad():
        for head, distances in enumerate(opened):
            for k in range(num_distances):
                weight = 1.0 if k + 1 in distances else -1.0
                diagonal.distance_weights_HK[head, k] = weight / SINGLE_LOGIT_GAIN
        diagonal.seen_tokens.fill_(seen)
    return diagonal


def in_distances(length: int, distances: set[int]) -> np.ndarray:
    return reference.cells_where(length, lambda i, j: abs(i - j) in distances)


def diagonals(model: Any) -> list[Diagonal]:
    return [
        part
        for layer in sparse_layers(model)
        for part in layer.pattern.modules()
        if isinstance(part, Diagonal)
    ]


def randomise(model: Any) -> None:
    for parameter in gate_parameters(model):
        parameter.data.normal_()


def masks(model: Any) -> list[torch.Tensor]:
    found = [mask.diagonals_BHK for mask in latest_masks(model)]
    assert all(gates is not None for gates in found)
    return cast(list[torch.Tensor], found)


# Its cells


@given(
    lengths=lengths_strategy,
    opened=st.lists(st.sets(st.integers(1, 30)), min_size=1, max_size=3),
    num_distances=st.integers(1, 30),
    seen=st.integers(0, 30),
    left=st.booleans(),
)
def test_cells_in_evaluation(
    lengths: list[int], opened: list[set[int]], num_distances: int, seen: int, left: bool
) -> None:
    keep_BN = keep_of(lengths, left, extra=1)
    mask = bound(opened, num_distances, seen).eval()(LayerInput(keep_BN))
    cells_BHNN = mask.dense()
    for head, distances in enumerate(opened):
        can = {d for d in distances if d <= num_distances and (seen == 0 or d < seen)}
        maps = [in_distances(length, can | {0}) for length in lengths]
        np.testing.assert_array_equal(cells_BHNN[:, head].numpy(), padded(maps, keep_BN))
        kept_B = mask.kept_cells().expand(-1, len(opened))[:, head]
        np.testing.assert_array_equal(kept_B.numpy(), [own.sum() for own in maps])


@given(length=st.integers(2, 300), opened=st.sets(st.integers(1, 128)))
def test_closed_form(length: int, opened: set[int]) -> None:
    """N cells of the main diagonal and 2 (N - k) of each open distance k below N."""
    mask = bound([opened], 128).eval()(LayerInput(keep_of([length])))
    kept = length + sum(2 * (length - k) for k in opened if k < length)
    assert mask.kept_cells().item() == kept
    assert mask.sparsity().item() == pytest.approx(1 - kept / length**2, abs=1e-6)


def test_starts_full_in_evaluation_and_nearly_so_in_training() -> None:
    diagonal = Diagonal("head", 400).bind(LayerSite(0, 1, 8, num_heads=12))
    inputs = LayerInput(keep_of([300]))
    assert diagonal.eval()(inputs).sparsity() == 0
    expected = (1 - 1 / 300) * (1 - torch.sigmoid(torch.tensor(2.0)).item())
    assert diagonal.train()(inputs).sparsity().item() == pytest.approx(expected, abs=0.02)


def test_main_diagonal_is_open_when_all_gates_are_closed() -> None:
    diagonal = bound([set()], 9)
    diagonal.distance_weights_HK.data.fill_(-1e4)
    inputs = LayerInput(keep_of([5, 3]))
    expected = Local(0)(inputs).dense()
    for training in (True, False):
        assert torch.equal(diagonal.train(training)(inputs).dense(), expected)
    assert torch.equal(diagonal.closed()(inputs).dense(), expected)
    assert diagonal.learnable


# Its gradient


@pytest.mark.parametrize("through", ["rho", "attention"])
@pytest.mark.parametrize("scope", SCOPES)
def test_gradients_reach_the_gates_of_distances_that_occur(scope: Any, through: str) -> None:
    diagonal = cast(Diagonal, Diagonal(scope, 12, 0.0).bind(LayerSite(0, 1, 8, num_heads=2)))
    keep_BN = keep_of([9, 4])
    mask = diagonal.train()(LayerInput(keep_BN))
    if through == "rho":
        mask.sparsity().sum().backward()
    else:
        query_BHND = torch.randn(2, 2, 9, 8)
        output_BHND, _ = dense_attention(query_BHND, query_BHND, query_BHND, mask, scaling=0.3)
        (output_BHND**2).sum().backward()
    gradient_HK = diagonal.distance_weights_HK.grad
    assert gradient_HK is not None
    assert (gradient_HK[:, :8] != 0).all()
    assert (gradient_HK[:, 8:] == 0).all()
    if through == "rho":  # opening a distance lowers rho, near ones most: they have most cells
        assert (gradient_HK[:, :8] < 0).all()


def test_gradient_of_rho_is_the_share_of_cells() -> None:
    """d rho / d gate_k = -2 (N - k) / N^2, times the slope of the sigmoid at the drawn noise."""
    diagonal = bound([{1, 3}], 5)
    diagonal.noise_scale = 0.0
    diagonal.train()(LayerInput(keep_of([10]))).sparsity().sum().backward()
    slope = torch.sigmoid(torch.tensor(1.0)) * torch.sigmoid(torch.tensor(-1.0))
    slope = SINGLE_LOGIT_GAIN * slope
    expected = [-2 * (10 - k) / 100 * slope.item() for k in range(1, 6)]
    assert diagonal.distance_weights_HK.grad is not None
    assert diagonal.distance_weights_HK.grad[0].tolist() == pytest.approx(expected, rel=1e-5)


# In an encoder


@pytest.mark.parametrize(("scope", "count"), [("task", 1), ("layer", 3), ("head", 3)])
def test_sets_of_gates(make_encoder: EncoderFactory, scope: Any, count: int) -> None:
    model = sparsify(make_encoder(num_hidden_layers=3), Diagonal(scope, 7) | Global(1))
    gates = gate_parameters(model)
    assert [tuple(gate.shape) for gate in gates] == [(2 if scope == "head" else 1, 7)] * count
    assert len({id(gate) for gate in gates}) == count
    named = [name for name, _ in model.named_parameters() if "sparse" in name]
    assert len(named) == count


@pytest.mark.parametrize("scope", SCOPES)
def test_draws(make_encoder: EncoderFactory, family: str, scope: Any, batch: Batch) -> None:
    """One for all layers under ``task``, else one a layer; anew in each pass; none in eval."""
    model = sparsify(make_encoder(family), Diagonal(scope, 30, 0.0) | Global(1)).train()
    model(**batch)
    first, second = masks(model)
    assert torch.equal(first, second) == (scope == "task")
    assert first.shape[0] == 1  # the same for the whole batch
    model(**batch)
    assert not torch.equal(first, masks(model)[0])
    randomise(model)
    model.eval()
    model(**batch)
    expected = masks(model)
    model(**batch)
    assert all(torch.equal(a, b) for a, b in zip(expected, masks(model), strict=True))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_gradient_checkpointing_changes_nothing(
    make_encoder: EncoderFactory, scope: Any, batch: Batch
) -> None:
    model = sparsify(make_encoder(**WITHOUT_DROPOUT), Diagonal(scope, 11, 0.0) | Global(1)).train()

    def step() -> list[torch.Tensor]:
        """Two passes before one backward: each is run again under its own draw."""
        torch.manual_seed(3)
        model.zero_grad()
        loss = sum(model(**batch).logits.square().sum() + sparsity_loss(model, 1) for _ in "ab")
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    expected = step()
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(step(), expected)


@pytest.mark.parametrize("scope", SCOPES)
def test_templates_copies_and_frozen_gates(
    make_encoder: EncoderFactory, scope: Any, batch: Batch
) -> None:
    template = Diagonal(scope, 11, 0.0)
    model, other = (sparsify(make_encoder(), template).train() for _ in range(2))
    assert not list(template.parameters())
    model(**batch)
    sparsity_loss(model, 1).backward()
    twin = copy.deepcopy(model)
    count = 1 if scope == "task" else 2
    for one in (twin, other):
        assert len({id(p) for p in gate_parameters(one)}) == count
        assert not {id(p) for p in gate_parameters(one)} & {id(p) for p in gate_parameters(model)}
    randomise(model)
    assert all((gate == 0).all() for gate in [*gate_parameters(twin), *gate_parameters(other)])
    twin(**batch)
    first, second = masks(twin)
    assert torch.equal(first, second) == (scope == "task")
    for gate in gate_parameters(twin):
        gate.requires_grad_(False)
    twin(**batch).logits.sum().backward()
    assert not sparsity(twin).requires_grad


@pytest.mark.parametrize("scope", SCOPES)
def test_saved_and_loaded(
    make_encoder: EncoderFactory, scope: Any, batch: Batch, tmp_path: Path
) -> None:
    pattern = Diagonal(scope, 11) | Axis() | Global(1)
    model, second, third = (sparsify(make_encoder(), pattern) for _ in range(3))
    randomise(model)
    model.train()(**batch)
    expected = model.eval()(**batch).logits
    save_model(model, str(tmp_path / "model.safetensors"))
    load_model(second, tmp_path / "model.safetensors")
    third.load_state_dict(model.state_dict())
    for loaded in (second, third):
        assert torch.equal(loaded(**batch).logits, expected)
        assert all(int(diagonal.seen_tokens) == 12 for diagonal in diagonals(loaded))


def test_noise_can_be_taken_away(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(), Diagonal("task", 11))
    randomise(model)
    model.eval()(**batch)
    expected = masks(model)[0]
    scale_gate_noise(model.train(), 0.0)
    model(**batch)
    assert torch.equal(masks(model)[0], expected)


def test_under_autocast_rho_is_exact(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(), Diagonal("head", 11))
    randomise(model)
    model(**batch)
    expected = sparsity(model)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch)
        assert sparsity(model) == expected


# Texts longer than those of training


def test_distances_that_training_never_saw_stay_closed(
    make_encoder: EncoderFactory, batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    model = sparsify(make_encoder(), Diagonal("layer", 20))
    first = diagonals(model)[0]
    assert first.unseen_distances() == 20
    short = {name: tensor[2:, :5] for name, tensor in batch.items()}  # of 5 and 1 tokens
    model.train()(**short)
    assert first.unseen_distances() == 16
    model.eval()
    with caplog.at_level(logging.WARNING, "aaa"):
        model(**short)
        assert not caplog.messages
        for _ in range(2):
            model(**batch)
            for diagonals_BHK in masks(model):
                assert diagonals_BHK[0, 0].tolist() == [1.0] * 5 + [0.0] * 16
    assert caplog.messages == [
        "a text of 12 tokens: 7 of its 11 distances, from 5 on, were not seen in training and "
        "stay closed"
    ]
    model.train()(**batch)
    assert [diagonal.unseen_distances() for diagonal in diagonals(model)] == [9, 9]


@pytest.mark.parametrize("scope", SCOPES)
def test_processes_agree_on_the_longest_text(
    make_encoder: EncoderFactory, scope: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_reduce(tensor: torch.Tensor, operation: Any) -> None:
        assert operation == torch.distributed.ReduceOp.MAX
        tensor.clamp_min_(15)  # what another process has seen

    model = sparsify(make_encoder(), Diagonal(scope, 20) | Global(1)).train()
    model(**batch)
    synchronise_patterns(model)
    assert {int(diagonal.seen_tokens) for diagonal in diagonals(model)} == {12}
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    synchronise_patterns(model)
    assert {int(diagonal.seen_tokens) for diagonal in diagonals(model)} == {15}


def test_distances_without_a_gate_stay_closed(
    make_encoder: EncoderFactory, batch: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    model = sparsify(make_encoder(), Diagonal("head", 4)).train()
    with caplog.at_level(logging.WARNING, "aaa"):
        model(**batch)
    assert caplog.messages == [
        "a text of 12 tokens: 7 of its 11 distances, from 5 on, have no gate and stay closed"
    ]
    assert diagonals(model)[0].unseen_distances() == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scope": "batch"}, "Diagonal scope 'batch' is unknown; known: task, layer, head"),
        ({"num_distances": 0}, "num_distances is a whole number from 1 on, not 0"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Diagonal(**wrong)


def test_two_diagonals_of_one_union_are_apart(make_encoder: EncoderFactory) -> None:
    pattern: Pattern = Diagonal("task", 4) | Diagonal("task", 5)
    assert len(gate_parameters(sparsify(make_encoder(), pattern))) == 2
