"""``auto``: what it chooses, that it says so, and that the choice changes nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aaa.attention import auto
from aaa.attention.auto import (
    ANY_EDGES,
    auto_attention,
    choose,
    choose_on_gpu,
    computed_cells,
    twice_each_distance,
)
from aaa.attention.dense import dense_attention
from aaa.attention.sdpa import LONGEST_PLAIN
from aaa.attention.slots import SLOT_CELLS
from aaa.masks import SparseMask
from aaa.patterns import Full, Global, LayerInput, Local, Random
from tests.reference import keep_of

HERE = LayerInput(torch.ones(1, 4096, dtype=torch.bool))
MIDDLE = LayerInput(torch.ones(1, 512, dtype=torch.bool))
QUARTER = LayerInput(torch.ones(1, 256, dtype=torch.bool))
SHORT = LayerInput(torch.ones(8, 64, dtype=torch.bool))
WITH_A_HOLE = LayerInput(torch.arange(4096).unsqueeze(0) != 100)
VERY_LONG = LayerInput(torch.ones(1, 10_000, dtype=torch.bool))
SPARSE = Local(2) | Global(2)


def learning(mask: SparseMask) -> SparseMask:
    gates = (mask.rows_BHN, mask.columns_BHN, mask.diagonals_BHK)
    rows, columns, diagonals = (g if g is None else g.clone().requires_grad_() for g in gates)
    return SparseMask(mask.keep_BN, rows, columns, diagonals)


def diagonals(inputs: LayerInput, distances: range, heads: int = 1) -> SparseMask:
    gates_BHK = torch.zeros(1, heads, inputs.keep_BN.shape[1])
    gates_BHK[..., distances] = 1
    return SparseMask(inputs.keep_BN, diagonals_BHK=gates_BHK)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    ("mask", "name"),
    [
        (SPARSE(SHORT), "sdpa"),
        (Full()(SHORT), "sdpa"),
        (SPARSE(HERE), "gathered"),
        ((Local(128) | Global(1))(HERE), "gathered"),
        (Full()(HERE), "sdpa"),
        ((Local(2) | Random(1))(HERE), "gathered"),
        ((Local(2) | Random(8))(HERE), "gathered"),
        ((Local(2) | Random(32))(HERE), "sdpa"),  # 1,024 keys a query, each read for it alone
        (diagonals(HERE, range(128)), "gathered"),
        (diagonals(HERE, range(0, 4096, 50)), "gathered"),
        (diagonals(HERE, range(0, 4096, 10)), "sdpa"),  # near enough for one band of all cells
        (learning(diagonals(MIDDLE, range(16))), "gathered"),
        (learning(diagonals(MIDDLE, range(0, 512, 50))), "gathered"),
        (learning(diagonals(MIDDLE, range(0, 512, 5))), "dense"),
        (learning(diagonals(QUARTER, range(16))), "gathered"),
        (learning(diagonals(QUARTER, range(16), heads=12)), "dense"),  # twelve times the calls
        (learning(diagonals(HERE, range(0, 4096, 50))), "gathered"),  # see LONGEST_DENSE
        (learning(SPARSE(SHORT)), "dense"),
        (learning(SPARSE(HERE)), "gathered"),
        (learning(Full()(HERE)), "gathered"),  # N x N cells would be 64 MB a head, many times
        (SparseMask(HERE.keep_BN, torch.ones(1, 1, 4096), window=64), "gathered"),
        (SPARSE(WITH_A_HOLE), "sdpa"),
        (learning(SPARSE(WITH_A_HOLE)), "dense"),
    ],
)
def test_choice(mask: SparseMask, grad: bool, name: str) -> None:
    assert choose(mask, grad) == name


@pytest.mark.parametrize(
    ("mask", "mode", "dtype", "name"),
    [
        (SPARSE(SHORT), "inference", torch.bfloat16, "sdpa"),
        (SPARSE(HERE), "inference", torch.bfloat16, "triton"),
        (SPARSE(HERE), "training", torch.float32, "triton"),
        (SPARSE(HERE), "inference", torch.float64, "sdpa"),  # no dtype of the kernels
        (Full()(HERE), "inference", torch.bfloat16, "sdpa"),
        ((Local(256) | Global(2))(HERE), "inference", torch.bfloat16, "triton"),
        (Local(600)(HERE), "training", torch.bfloat16, "sdpa"),  # 29 % of the cells
        (
            SparseMask(HERE.keep_BN, torch.ones(1, 1, 4096), window=64),
            "training",
            torch.float32,
            "triton",
        ),
        (SPARSE(MIDDLE), "training", torch.bfloat16, "sdpa"),
        ((Local(2) | Random(1))(HERE), "inference", torch.bfloat16, "sdpa"),
        ((Local(2) | Random(1))(VERY_LONG), "inference", torch.bfloat16, "gathered"),
        (SPARSE(WITH_A_HOLE), "inference", torch.bfloat16, "sdpa"),
        (learning(SPARSE(SHORT)), "gates being learned", torch.bfloat16, "dense"),
        (learning(SPARSE(HERE)), "gates being learned", torch.bfloat16, "triton"),
        (learning(Full()(HERE)), "gates being learned", torch.bfloat16, "triton"),
        (learning(SPARSE(HERE)), "gates being learned", torch.float64, "gathered"),
    ],
)
def test_choice_on_a_gpu(mask: SparseMask, mode: str, dtype: torch.dtype, name: str) -> None:
    """What needs no GPU to be asked."""
    pytest.importorskip("triton")
    assert choose_on_gpu(mask, mode, dtype)[0] == name


def test_asking_on_a_gpu_starts_few_kernels() -> None:
    """Each takes some ten microseconds to start, in every layer of every pass."""
    pytest.importorskip("triton")
    mask = (Local(256) | Global(2))(HERE)
    with Operations() as counted:
        choose_on_gpu(mask, "inference", torch.bfloat16)
    assert 0 < counted.number < 40


class Operations(TorchDispatchMode):
    """Counts what PyTorch does, views of tensors included."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_the_choice_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "_said", set())
    with caplog.at_level(logging.INFO, logger="aaa"):
        for mask in (SPARSE(HERE), SPARSE(HERE), Full()(HERE)):
            choose(mask, grad=False)
        choose(learning(SPARSE(HERE)), grad=True)
    sparse, full, learned = (record.getMessage() for record in caplog.records)
    assert sparse.startswith(
        "attention by gathered (inference): 4096 tokens on cpu, it computes 0.6%"
    )
    assert full == (
        "attention by sdpa (inference): 4096 tokens on cpu, gathered would compute 100.0% of the "
        "cells"
    )
    assert "gathered (gates being learned)" in learned


def test_one_short_text_is_not_counted_and_several_are() -> None:
    window = Local(2)  # of which gathered computes an eighth of the cells
    assert choose(window(LayerInput(keep_of([210]))), grad=False) == "sdpa"
    assert choose(window(LayerInput(keep_of([210, 210]))), grad=False) == "gathered"
    assert choose(window(LayerInput(keep_of([220]))), grad=False) == "gathered"


def test_the_choice_depends_on_the_heads() -> None:
    mask = SPARSE(LayerInput(keep_of([300])))
    chosen = [choose(mask, False, heads=heads, size=size) for heads, size in ((12, 64), (2, 16))]
    assert chosen == ["gathered", "sdpa"]
    assert choose(SPARSE(MIDDLE), False, heads=16, size=128) == "gathered"
    assert choose(SPARSE(HERE), False, heads=2, size=16) == "gathered"


def test_beyond_plain_products_sdpa_costs_more() -> None:
    """A window of half the cells, in texts of either side."""
    chosen = [
        choose(Local(length // 4)(LayerInput(keep_of([length]))), grad=False)
        for length in (LONGEST_PLAIN, LONGEST_PLAIN + 8)
    ]
    assert chosen == ["sdpa", "gathered"]


def test_maps_that_the_system_clears_anew_cost_dense_more() -> None:
    """1,024 tokens of 12 heads, 50 MB a map."""

    def chosen(share: float, heads: int) -> str:
        gates = torch.zeros(1, 1, 1024)
        gates[..., : int(share * 1024)] = 1
        mask = SparseMask(keep_of([1024]), gates, gates.clone().requires_grad_())
        return choose(mask, True, heads=heads)

    assert [chosen(share, 12) for share in (0.2, 0.4, 0.65)] == ["gathered", "gathered", "dense"]
    assert [chosen(share, 7) for share in (0.2, 0.4)] == ["gathered", "dense"]


def test_counting_ends_where_diagonals_alone_are_enough() -> None:
    mask = (Local(2) | Global(2))(HERE)
    lengths = [4096]
    cells = computed_cells(mask, lengths, twice_each_distance)
    assert cells == [4096 * (6 + 4)]  # of three distances, two rows and two columns
    assert computed_cells(mask, lengths, twice_each_distance, enough=4096 * 6) == [4096 * 6]
    assert computed_cells(mask, lengths, twice_each_distance, enough=4096 * 6 + 1) == cells
    three = (Local(2) | Global(2) | Random(1))(LayerInput(keep_of([300, 20, 0])))
    cells = computed_cells(three, [300, 20, 0], twice_each_distance)
    assert three.edges_BE2 is not None
    long, short, empty = (three.edges_BE2[..., 0] >= 0).sum(1).tolist()
    assert cells == [300 * 10 + SLOT_CELLS * long + ANY_EDGES, 20**2, 0]
    assert (long > 100, short > 0, empty) == (True, True, 0)


@pytest.mark.parametrize("length", [40, 1500])
@pytest.mark.parametrize("learn", [False, True])
def test_auto_is_dense(length: int, learn: bool) -> None:
    mask = SPARSE(LayerInput(torch.ones(1, length, dtype=torch.bool)))
    mask = learning(mask) if learn else mask
    query, key, value = torch.randn(3, 1, 2, length, 4)
    expected, _ = dense_attention(query, key, value, mask, scaling=0.5)
    output, _ = auto_attention(query, key, value, mask, scaling=0.5)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
