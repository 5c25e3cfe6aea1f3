from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aaa.attention.dense import dense_attention
from aaa.patterns import Axis, LayerInput, LayerSite, Local
from tests import reference
from tests.reference import keep_of, lengths_strategy, padded, site

WIDTH = 8


def bound(seed: int | None = None, initial_logit: float = 2.0, temperature: float = 1.0) -> Axis:
    """An Axis at a layer: as it starts, or with random importance layers."""
    axis = cast(Axis, Axis(initial_logit, temperature).bind(site(hidden_size=WIDTH)))
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in axis.parameters():
            parameter.data.normal_(generator=generator)
    return axis


def hidden(keep_BN: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*keep_BN.shape, WIDTH, generator=generator)


def chosen(importance: torch.nn.Module, hidden_ND: Tensor) -> set[int]:
    """Section 4.2: the tokens that a fully connected layer finds important."""
    weight, bias = (p.detach().double().numpy() for p in importance.parameters())
    logits = hidden_ND.double().numpy() @ weight[0] + bias[0]
    return set(np.flatnonzero(logits > 0).tolist())


@given(lengths=lengths_strategy, seed=st.integers(0, 1000), left=st.booleans())
def test_cells_in_evaluation(lengths: list[int], seed: int, left: bool) -> None:
    axis, keep_BN = bound(seed).eval(), keep_of(lengths, left, extra=2)
    hidden_BND = hidden(keep_BN, seed)
    maps = []
    for length, hidden_ND, keep_N in zip(lengths, hidden_BND, keep_BN, strict=True):
        rows, columns = (chosen(part, hidden_ND[keep_N]) for part in (axis.row, axis.column))
        maps.append(
            reference.union(reference.axis(length, rows, columns), reference.local(length, 0))
        )
    mask = axis(LayerInput(keep_BN, hidden_BND))
    np.testing.assert_array_equal(mask.dense()[:, 0].numpy(), padded(maps, keep_BN))
    assert torch.equal(mask.dense(), axis(LayerInput(keep_BN, hidden_BND)).dense())
    assert mask.sparsity().mean().item() == pytest.approx(reference.rho(maps), abs=1e-6)


def test_eq_12() -> None:
    keep_BN = keep_of([7])
    mask = bound(3).train()(LayerInput(keep_BN, hidden(keep_BN)))
    assert mask.rows_BHN is not None
    assert mask.columns_BHN is not None
    row, column = mask.rows_BHN[0, 0, :, None], mask.columns_BHN[0, 0, None, :]
    cells = row + column - row * column
    cells.fill_diagonal_(1)
    assert torch.equal(mask.dense()[0, 0], cells)


def test_starts_full_in_evaluation() -> None:
    keep_BN = keep_of([9, 4])
    mask = bound().eval()(LayerInput(keep_BN, hidden(keep_BN)))
    assert mask.sparsity().tolist() == [0, 0]


def test_starts_nearly_full_in_training() -> None:
    keep_BN = keep_of([40] * 64)
    mask = bound().train()(LayerInput(keep_BN, hidden(keep_BN)))
    gate = torch.sigmoid(torch.tensor(2.0))
    expected = 39 / 40 * (1 - gate).item() ** 2  # the main diagonal stays open
    assert mask.sparsity().mean().item() == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_noise_opens_a_gate_with_probability_sigmoid(temperature: float) -> None:
    axis = bound(1, temperature=temperature).train()
    keep_BN = keep_of([4])
    inputs = LayerInput(keep_BN.expand(5000, -1), hidden(keep_BN).expand(5000, -1, -1))
    mask = axis(inputs)
    for gates_BHN, importance in ((mask.rows_BHN, axis.row), (mask.columns_BHN, axis.column)):
        expected = torch.sigmoid(importance(hidden(keep_BN))[0, :, 0])
        torch.testing.assert_close(gates_BHN.mean((0, 1)), expected, rtol=0, atol=0.03)


def test_each_forward_pass_draws_anew_in_training() -> None:
    keep_BN = keep_of([30])
    axis, inputs = bound(2).train(), LayerInput(keep_BN, hidden(keep_BN))
    assert not torch.equal(axis(inputs).dense(), axis(inputs).dense())


@pytest.mark.parametrize("training", [True, False])
def test_padding_is_never_chosen(training: bool) -> None:
    keep_BN = keep_of([5, 3, 0], [False, True, False], extra=2)
    axis = bound(initial_logit=1e4).train(training)
    mask = axis(LayerInput(keep_BN, hidden(keep_BN)))
    for gates_BHN in (mask.rows_BHN, mask.columns_BHN):
        assert torch.equal(gates_BHN[:, 0] > 0, keep_BN)


def test_main_diagonal_is_open_when_all_gates_are_closed() -> None:
    keep_BN = keep_of([5, 3], extra=1)
    axis = bound(initial_logit=-1e4).train()
    mask = axis(LayerInput(keep_BN, hidden(keep_BN)))
    expected = Local(0)(LayerInput(keep_BN)).dense()
    assert torch.equal(mask.dense(), expected)
    assert torch.equal(axis.closed()(LayerInput(keep_BN)).dense(), expected)


@pytest.mark.parametrize("through", ["rho", "attention"])
def test_gradients_reach_both_importance_layers(through: str) -> None:
    keep_BN = keep_of([12, 7])
    axis, hidden_BND = bound(initial_logit=0.0).train(), hidden(keep_BN)
    mask = axis(LayerInput(keep_BN, hidden_BND))
    if through == "rho":
        mask.sparsity().sum().backward()
    else:
        query_BHND = hidden_BND.unsqueeze(1)
        output_BHND, _ = dense_attention(query_BHND, query_BHND, query_BHND, mask, scaling=0.3)
        (output_BHND[:, :, 0] ** 2).sum().backward()
    for name, parameter in axis.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_gates_of_a_text_do_not_depend_on_its_batch() -> None:
    keep_BN, axis = keep_of([9, 5], extra=3), bound(5).eval()
    hidden_BND = hidden(keep_BN)
    alone = axis(LayerInput(keep_BN[1:, :5], hidden_BND[1:, :5]))
    together = axis(LayerInput(keep_BN, hidden_BND.masked_fill(~keep_BN.unsqueeze(-1), torch.nan)))
    assert alone.rows_BHN is not None
    assert together.rows_BHN is not None
    assert torch.equal(alone.rows_BHN, together.rows_BHN[1:, :, :5])


def test_closing_gates_raises_rho() -> None:
    keep_BN = keep_of([12, 7])
    axis = bound(initial_logit=0.5).train()
    axis(LayerInput(keep_BN, hidden(keep_BN))).sparsity().mean().backward()
    for importance in (axis.row, axis.column):
        assert importance.bias.grad is not None
        assert importance.bias.grad < 0


def test_logits_are_float32_under_autocast() -> None:
    keep_BN = keep_of([64])
    axis, hidden_BND = bound(4).eval(), hidden(keep_BN)
    expected = axis(LayerInput(keep_BN, hidden_BND)).dense()
    with torch.autocast("cpu", torch.bfloat16):
        mask = axis(LayerInput(keep_BN, hidden_BND))
    assert torch.equal(mask.dense(), expected)


@given(
    lengths=lengths_strategy, seed=st.integers(0, 1000), part=st.sampled_from(["row", "column"])
)
def test_rows_or_columns_alone(lengths: list[int], seed: int, part: str) -> None:
    template = Axis(rows=part == "row", columns=part == "column")
    axis, keep_BN = cast(Axis, template.bind(site(hidden_size=WIDTH))), keep_of(lengths)
    assert {name.split(".")[0] for name, _ in axis.named_parameters()} == {part}
    for parameter in axis.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(seed))
    hidden_BND = hidden(keep_BN, seed)
    maps = []
    for length, hidden_ND in zip(lengths, hidden_BND, strict=True):
        tokens = chosen(getattr(axis, part), hidden_ND[:length])
        both = (tokens, ()) if part == "row" else ((), tokens)
        maps.append(reference.union(reference.axis(length, *both), reference.local(length, 0)))
    mask = axis.eval()(LayerInput(keep_BN, hidden_BND))
    np.testing.assert_array_equal(mask.dense()[:, 0].numpy(), padded(maps, keep_BN))
    assert (mask.rows_BHN is None, mask.columns_BHN is None) == (part != "row", part == "row")


@given(lengths=lengths_strategy, seed=st.integers(0, 1000))
def test_each_head_chooses_its_own_tokens(lengths: list[int], seed: int) -> None:
    heads, keep_BN = 3, keep_of(lengths)
    axis = cast(Axis, Axis(per_head=True).bind(LayerSite(0, 4, WIDTH, heads)))
    for parameter in axis.parameters():
        parameter.data.normal_(generator=torch.Generator().manual_seed(seed))
    hidden_BND = hidden(keep_BN, seed)
    mask = axis.eval()(LayerInput(keep_BN, hidden_BND))
    for head in range(heads):
        maps = []
        for length, hidden_ND in zip(lengths, hidden_BND, strict=True):
            rows, columns = (
                chosen_by_head(layer, hidden_ND[:length], head)
                for layer in (axis.row, axis.column)
            )
            own = reference.axis(length, rows, columns)
            maps.append(reference.union(own, reference.local(length, 0)))
        np.testing.assert_array_equal(mask.dense()[:, head].numpy(), padded(maps, keep_BN))
        kept_B = mask.kept_cells()[:, head].numpy()
        np.testing.assert_array_equal(kept_B, [own.sum() for own in maps])


def chosen_by_head(importance: torch.nn.Linear, hidden_ND: Tensor, head: int) -> set[int]:
    one = torch.nn.Linear(WIDTH, 1)
    one.weight.data, one.bias.data = importance.weight.data[[head]], importance.bias.data[[head]]
    return chosen(one, hidden_ND)


def test_neither_rows_nor_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="rows, columns or both"):
        Axis(rows=False, columns=False)


def test_written() -> None:
    assert str(Axis()) == "Axis()"
    assert str(Axis(columns=False, per_head=True)) == "Axis(columns=False, per_head=True)"


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_not_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        Axis(temperature=temperature)


def test_a_template_has_no_parameters() -> None:
    assert not list(Axis().parameters())
    assert Axis().learnable
    assert {name for name, _ in bound().named_parameters()} == {
        "row.weight",
        "row.bias",
        "column.weight",
        "column.bias",
    }


def test_importance_layers_are_called_as_modules() -> None:
    """Else hooks of offloading, sharding and adapters would be passed over."""
    keep_BN = keep_of([4, 3])
    axis, seen = bound(4), []
    axis.row.register_forward_hook(lambda layer, arguments, output: seen.append(output))
    inputs = LayerInput(keep_BN, hidden(keep_BN))
    axis(inputs)
    assert len(seen) == 1
