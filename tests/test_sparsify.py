"""``sparsify``: what a sparse model computes, its masks, the model as an object, training."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from aaa import (
    Axis,
    Diagonal,
    Full,
    Global,
    Local,
    Pattern,
    Random,
    gate_parameters,
    latest_masks,
    sparsify,
    sparsity,
    sparsity_loss,
)
from aaa.patterns import InLayers, LayerSite
from aaa.sparse import lower_gates, scale_gate_noise, sparse_layers
from tests.encoders import Batch, hidden_states, randomise_gates, real
from tests.reference import mask_cells

EncoderFactory = Callable[..., Any]

PATTERNS = [
    Full(),
    Local(1),
    Global(1),
    Local(1) | Global(1) | Random(4),
    Random(1, reading="text"),
    Axis(),
    Axis() | Local(2),
]
EXECUTORS = ["dense", "sdpa", "auto"]
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def train_step(model: Any, batch: Batch, target: float = 0.9) -> tuple[float, float, list[Tensor]]:
    """Loss, rho and all gradients of one step in training mode, the noise always the same."""
    model.train()
    torch.manual_seed(3)
    labels = torch.zeros(len(batch["input_ids"]), dtype=torch.long)
    loss = model(**batch, labels=labels).loss + sparsity_loss(model, target)
    model.zero_grad()
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return loss.item(), sparsity(model).item(), gradients


# What it computes


def test_each_layer_attends_under_its_mask(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(), Local(1) | Random(2), "dense")
    attentions = model(**batch, output_attentions=True).attentions
    keep_BN = batch["attention_mask"].bool()
    for layer, attention_BHNN in enumerate(attentions):
        pattern = (Local(1) | Random(2)).bind(LayerSite(layer, 2, 16, 2))
        cells_BNN = torch.from_numpy(mask_cells(pattern, keep_BN))
        for head in range(2):
            opened = (attention_BHNN[:, head] > 0).float()[keep_BN]
            assert torch.equal(opened.double(), cells_BNN.double()[keep_BN])


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_batch_composition_changes_nothing(
    make_encoder: EncoderFactory, pattern: Pattern, executor: str, batch: Batch
) -> None:
    model = sparsify(make_encoder(), pattern, executor)
    randomise_gates(model)
    together = hidden_states(model, batch)
    rho_B = torch.stack([mask.sparsity() for mask in latest_masks(model)]).mean(0)
    for row, length in enumerate(batch["attention_mask"].sum(-1).tolist()):
        alone = {"input_ids": batch["input_ids"][row : row + 1, :length]}
        states = hidden_states(model, alone)[0]
        torch.testing.assert_close(states, together[row, :length], rtol=1e-4, atol=1e-5)
        assert sparsity(model).item() == pytest.approx(rho_B[row].item(), abs=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_left_padding(make_encoder: EncoderFactory, pattern: Pattern, batch: Batch) -> None:
    model = sparsify(make_encoder(), pattern)
    randomise_gates(model)
    keep_BN = batch["attention_mask"].bool()
    on_the_left = {
        "input_ids": torch.ones_like(batch["input_ids"]),
        "attention_mask": batch["attention_mask"].flip(-1),
    }
    on_the_left["input_ids"][keep_BN.flip(-1)] = batch["input_ids"][keep_BN]
    positions = (on_the_left["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    expected = real(batch, hidden_states(model, batch))
    actual = hidden_states(model, {**on_the_left, "position_ids": positions})
    torch.testing.assert_close(real(on_the_left, actual), expected, rtol=1e-4, atol=1e-5)


def test_multiple_choice_and_other_heads(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(head="ForMultipleChoice"), Local(2))
    assert model(**{name: x.view(2, 2, -1) for name, x in batch.items()}).logits.shape == (2, 2)
    model = sparsify(make_encoder(head="ForMaskedLM"), Local(2))
    assert model(**batch).logits.shape[:2] == batch["input_ids"].shape


def test_dropout_is_for_training_only(make_encoder: EncoderFactory, batch: Batch) -> None:
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}
    model = sparsify(make_encoder(**dropout), Local(2))
    first = hidden_states(model, batch)
    assert torch.equal(hidden_states(model, batch), first)
    model.train()
    assert not torch.equal(hidden_states(model, batch), first)


# The masks of the latest pass


def test_one_mask_a_layer(make_encoder: EncoderFactory, family: str, batch: Batch) -> None:
    model = sparsify(make_encoder(family, num_hidden_layers=3, n_layers=3), Axis() | Local(1))
    for lengths in ([12, 9, 5, 1], [12, 9]):
        hidden_states(model, {name: x[: len(lengths)] for name, x in batch.items()})
        masks = latest_masks(model)
        assert len(masks) == 3
        assert all(mask.lengths_B.tolist() == lengths for mask in masks)
    assert len(sparse_layers(model)) == (1 if family == "Albert" else 3)


def test_masks_of_a_dense_or_fresh_model(make_encoder: EncoderFactory) -> None:
    model = make_encoder()
    with pytest.raises(ValueError, match="dense"):
        latest_masks(model)
    with pytest.raises(ValueError, match="not run"):
        latest_masks(sparsify(model, Local(1)))


def test_sparsity_is_the_mean_over_texts_and_layers(
    make_encoder: EncoderFactory, batch: Batch
) -> None:
    model = sparsify(make_encoder(), Axis() | Local(1))
    randomise_gates(model)
    hidden_states(model, batch)
    shares = []
    for mask in latest_masks(model):
        for cells_HNN, length in zip(mask.dense(), mask.lengths_B.tolist(), strict=True):
            shares += [1 - cells_NN.sum().item() / length**2 for cells_NN in cells_HNN]
    rho = sum(shares) / len(shares)
    assert sparsity(model).item() == pytest.approx(rho, abs=1e-6)
    for target in (rho + 0.1, rho - 0.1):
        expected = 7 * max(0.0, target - rho)
        assert sparsity_loss(model, target, 7).item() == pytest.approx(expected, abs=1e-5)


# The model as an object


def test_gates_are_parameters_and_state(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(), Axis() | Local(2))
    randomise_gates(model)
    gates = {id(parameter) for parameter in gate_parameters(model)}
    assert len(gates) == 2 * 4
    assert gates <= {id(parameter) for parameter in model.parameters()}
    assert sum(".sparse." in name for name in model.state_dict()) == 2 * 4
    other = sparsify(make_encoder(), Axis() | Local(2))
    assert not torch.equal(hidden_states(other, batch), hidden_states(model, batch))
    other.load_state_dict(model.state_dict())
    assert torch.equal(hidden_states(other, batch), hidden_states(model, batch))


def test_fixed_patterns_add_nothing_to_the_state(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder(), Local(1) | Global(1) | Random(1))
    assert model.state_dict().keys() == make_encoder().state_dict().keys()
    assert gate_parameters(model) == []


def test_templates_are_not_shared(make_encoder: EncoderFactory, batch: Batch) -> None:
    pattern = Axis()
    first, second = (sparsify(make_encoder(), pattern) for _ in range(2))
    expected = hidden_states(second, batch)
    randomise_gates(first)
    assert torch.equal(hidden_states(second, batch), expected)


@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_after_a_training_pass(
    make_encoder: EncoderFactory, copier: Callable[[Any], Any], batch: Batch
) -> None:
    model = sparsify(make_encoder(**WITHOUT_DROPOUT), Axis() | Local(2))
    randomise_gates(model)
    train_step(model, batch)
    twin = copier(model)
    assert len(latest_masks(model)) == 2
    with pytest.raises(ValueError, match="not run"):
        latest_masks(twin)
    assert torch.equal(hidden_states(twin.eval(), batch), hidden_states(model.eval(), batch))
    before = hidden_states(model, batch)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert torch.equal(hidden_states(model, batch), before)


# Training


@pytest.mark.parametrize("kwargs", [None, {"use_reentrant": False}], ids=str)
@pytest.mark.parametrize("family", ["Bert", "Roberta"])
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_gradient_checkpointing_changes_nothing(
    make_encoder: EncoderFactory, family: str, kwargs: dict[str, bool] | None, batch: Batch
) -> None:
    model = sparsify(make_encoder(family, **WITHOUT_DROPOUT), Axis() | Local(2))
    loss, rho, gradients = train_step(model, batch)
    model.gradient_checkpointing_enable(kwargs)
    assert model.is_gradient_checkpointing
    torch.testing.assert_close(train_step(model, batch), (loss, rho, gradients))
    assert len(latest_masks(model)) == 2


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_recomputation_in_backward_is_no_new_pass(
    make_encoder: EncoderFactory, batch: Batch
) -> None:
    model = sparsify(make_encoder(), Axis() | Local(2)).train()
    model.gradient_checkpointing_enable()
    loss = model(**batch).logits.sum()
    masks = latest_masks(model)
    loss.backward()
    assert all(one is other for one, other in zip(latest_masks(model), masks, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(make_encoder: EncoderFactory, dtype: torch.dtype, batch: Batch) -> None:
    model = sparsify(make_encoder(**WITHOUT_DROPOUT), Axis() | Local(2))
    expected, _, _ = train_step(model, batch)
    with torch.autocast("cpu", dtype):
        loss, rho, gradients = train_step(model, batch)
    assert loss == pytest.approx(expected, rel=0.1)
    assert 0 < rho < 0.5
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in gate_parameters(model))


def test_a_bf16_model(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(**WITHOUT_DROPOUT).bfloat16(), Axis() | Local(2))
    assert {parameter.dtype for parameter in gate_parameters(model)} == {torch.float32}
    _, _, gradients = train_step(model, batch)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_learns_a_task_and_reaches_its_target(make_encoder: EncoderFactory) -> None:
    model = sparsify(make_encoder(num_labels=2), Axis() | Local(1)).train()
    gates = gate_parameters(model)
    rest = set(model.parameters()) - set(gates)
    groups = [{"params": gates, "lr": 3e-2}, {"params": list(rest), "lr": 3e-3}]
    optimiser, target, losses = torch.optim.Adam(groups), 0.6, []
    generator = torch.Generator().manual_seed(4)
    for step in range(150):
        ids_BN = torch.randint(10, 60, (16, 12), generator=generator)
        labels_B = torch.arange(16) % 2
        ids_BN[labels_B == 1, 5] = 7  # the token to be found
        loss = model(input_ids=ids_BN, labels=labels_B).loss
        losses.append(loss.item())
        (loss + sparsity_loss(model, target * min(1, step / 75))).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert sum(losses[-20:]) / 20 < 0.4 * sum(losses[:20]) / 20
    assert target - 0.05 < sparsity(model).item() < target + 0.15  # the hinge opens no gate again
    model.eval()(input_ids=ids_BN)
    assert sparsity(model).item() > 0.45


def test_modes_of_modules_are_left_alone(make_encoder: EncoderFactory) -> None:
    model = make_encoder().train()
    model.bert.embeddings.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    sparsify(model, Axis())
    assert {name: model.get_submodule(name).training for name in modes} == modes
    assert all(layer.training for layer in sparse_layers(model))


def test_importing_the_library_imports_no_framework() -> None:
    script = """
import sys, time
import torch, transformers.modeling_utils, transformers.masking_utils
start = time.perf_counter()
import aaa
assert time.perf_counter() - start < 1.5, "import aaa is slow"
heavy = ("pytorch_lightning", "lightning", "hydra", "omegaconf", "datasets", "wandb", "sklearn")
found = [name for name in heavy if name in sys.modules]
assert not found, found
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_gates_without_noise_are_those_of_evaluation(
    make_encoder: Callable[..., Any], batch: dict[str, Tensor]
) -> None:
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = sparsify(make_encoder(**no_dropout), Axis() | Local(1))
    randomise_gates(model)
    model(**batch)
    evaluated = float(sparsity(model).detach())
    model.train()
    scale_gate_noise(model, 0.0)
    model(**batch)
    assert float(sparsity(model).detach()) == evaluated
    scale_gate_noise(model, 1.0)
    model(**batch)
    assert float(sparsity(model).detach()) != evaluated


@pytest.mark.parametrize(
    "pattern",
    [Axis(), Axis(columns=False), Axis(per_head=True) | Local(1), Diagonal("task")],
    ids=str,
)
def test_lowering_moves_every_logit_by_as_much(
    make_encoder: Callable[..., Any], batch: dict[str, Tensor], pattern: Pattern
) -> None:
    """Also where layers share their gates: lowered by the start's level, half of them are open."""
    model = sparsify(make_encoder(), pattern).train()
    with torch.no_grad():
        lower_gates(model, 2.0)  # they start at 2
        opened = []
        for _ in range(200):
            model(**batch)
            mask = latest_masks(model)[0]
            gates = mask.rows_BHN
            if gates is None:
                assert mask.diagonals_BHK is not None
                gates = mask.diagonals_BHK[..., 1:]
            opened.append(gates[0].mean())
    assert float(torch.stack(opened).mean()) == pytest.approx(0.5, abs=0.05)


class TestThreads:
    """One model may serve several threads at once."""

    def test_each_gets_its_own_answer(self, make_encoder: EncoderFactory) -> None:
        model = sparsify(make_encoder(**WITHOUT_DROPOUT), Axis() | Local(1)).eval()
        randomise_gates(model)
        texts = [torch.randint(5, 60, (4, 8 + k)) for k in range(24)]

        def answer(ids_BN: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                return model(input_ids=ids_BN).logits

        expected = list(map(answer, texts))
        with ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                for found, one in zip(pool.map(answer, texts), expected, strict=True):
                    torch.testing.assert_close(found, one)

    def test_models_are_made_sparse_at_once(self, make_encoder: EncoderFactory) -> None:
        models = [make_encoder() for _ in range(8)]
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda model: sparsify(model, Axis() | Local(1)), models))
        assert all(len(sparse_layers(model)) == model.config.num_hidden_layers for model in made)


def test_one_attention_mask_for_all_texts(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(**WITHOUT_DROPOUT), Axis() | Local(1)).eval()
    ids_BN = batch["input_ids"]
    mask_1N = torch.ones(1, ids_BN.shape[1], dtype=torch.long)
    mask_1N[0, -3:] = 0
    found = model(input_ids=ids_BN, attention_mask=mask_1N).logits
    rho = sparsity(model)
    expected = model(input_ids=ids_BN, attention_mask=mask_1N.expand_as(ids_BN)).logits
    torch.testing.assert_close(found, expected)
    assert rho.item() == pytest.approx(sparsity(model).item())
    for shape in ((1, 3), (2, ids_BN.shape[1]), (len(ids_BN), 3)):
        with pytest.raises(ValueError, match=r"shape \(batch, tokens\), 1 for real tokens, here"):
            model(input_ids=ids_BN, attention_mask=torch.ones(shape, dtype=torch.long))


def test_a_new_model_of_a_sparse_models_config(make_encoder: EncoderFactory) -> None:
    sparse = sparsify(make_encoder(), Local(1))
    fresh = type(sparse)(copy.deepcopy(sparse.config))
    assert len(sparse_layers(sparsify(fresh, Axis()))) == fresh.config.num_hidden_layers


def test_layers_by_numbers_of_another_library(make_encoder: EncoderFactory) -> None:
    pattern = InLayers(Axis(), list(np.arange(1)), Local(1))
    assert pattern.spec() == InLayers(Axis(), [0], Local(1)).spec()
    assert InLayers(Axis(), cast(int, np.int64(1))).spec() == InLayers(Axis(), 1).spec()
    sparsify(make_encoder(), pattern)


def test_a_pattern_that_cannot_be_kept_leaves_the_model_alone(
    make_encoder: EncoderFactory,
) -> None:
    model, pattern = make_encoder(), Local(1)
    pattern.size = cast(int, object())
    with pytest.raises(AssertionError, match="not plain"):
        sparsify(model, pattern)
    assert not sparse_layers(model)
    sparsify(model, Local(1))


def test_attention_probabilities_asked_for_by_the_config(
    make_encoder: EncoderFactory, batch: Batch
) -> None:
    dense = make_encoder(attn_implementation="eager")
    dense.config.output_attentions = True
    with pytest.raises(ValueError, match="keeps no attention probabilities"):
        sparsify(dense, Local(1), executor="sdpa")(**batch)


def test_data_parallel_training_is_refused(make_encoder: EncoderFactory, batch: Batch) -> None:
    model = sparsify(make_encoder(), Axis()).train()
    for layer in sparse_layers(model):
        object.__setattr__(layer, "_is_replica", True)  # as torch.nn.DataParallel marks its copies
    with pytest.raises(ValueError, match="train with DistributedDataParallel"):
        model(**batch)
    model.eval()(**batch)
