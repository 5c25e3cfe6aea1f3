"""``exportable`` on texts of several blocks; short ones are in ``test_executors``."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aaa.attention.dense import dense_attention
from aaa.attention.exportable import exportable_attention
from aaa.masks import SparseMask
from aaa.patterns import LayerInput, Local
from tests.reference import keep_of

HEADS = 2


def drawn_edges(keep_BN: Tensor, share: float | None, generator: torch.Generator) -> Tensor | None:
    """Single cells between real tokens, filled up by -1."""
    if share is None:
        return None
    batch, num_tokens = keep_BN.shape
    drawn = torch.rand(batch, num_tokens, num_tokens, generator=generator) < share
    cells = [here.nonzero() for here in drawn & keep_BN[:, :, None] & keep_BN[:, None, :]]
    return torch.nn.utils.rnn.pad_sequence(cells, batch_first=True, padding_value=-1)


@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=3),
    left=st.booleans(),
    share=st.sampled_from([0.0, 0.05, 1.0]),
    diagonals=st.sampled_from([None, 1, 3, 40, 100]),
    heads=st.sampled_from([1, HEADS]),
    window=st.none() | st.sampled_from([0, 7, 30]),
    cells=st.sampled_from([None, 0.0, 0.02, 0.3]),
    seed=st.integers(0, 10_000),
)
def test_output_is_that_of_dense(
    lengths: list[int], left: bool, share: float, diagonals: int | None, heads: int,
    window: int | None, cells: float | None, seed: int,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    keep_BN = keep_of(lengths, left)
    gates = (2, len(lengths), heads, keep_BN.shape[1])
    rows, columns = (torch.rand(gates, generator=generator) < share).float()
    opened = None
    if diagonals is not None:
        opened = (torch.rand(1, heads, diagonals, generator=generator) < 0.5).float()
    mask = SparseMask(
        keep_BN, rows, columns, opened, drawn_edges(keep_BN, cells, generator), window
    )
    shape = (3, len(lengths), HEADS, keep_BN.shape[1], 8)
    query, key, value = torch.randn(shape, generator=generator)
    # Rows without any open cell are 0, as those of padding.
    some = (mask.dense().sum(-1, keepdim=True) > 0) & keep_BN[:, None, :, None]
    expected, _ = dense_attention(query, key, value, mask, scaling=0.4)
    output, _ = exportable_attention(query, key, value, mask, scaling=0.4)
    torch.testing.assert_close(output, expected * some, rtol=1e-5, atol=1e-6)


def test_padding_between_tokens_is_not_attended_to() -> None:
    keep_BN = torch.ones(2, 12, dtype=torch.bool)
    keep_BN[:, 4:6] = False
    generator = torch.Generator().manual_seed(0)
    every_cell_E2 = torch.cartesian_prod(torch.arange(12), torch.arange(12)).unsqueeze(0)
    mask = SparseMask(keep_BN, diagonals_BHK=torch.ones(1, 1, 2), edges_BE2=every_cell_E2)
    query, key, value = torch.randn(3, 2, HEADS, 12, 8, generator=generator)
    expected, _ = dense_attention(query, key, value, mask, scaling=0.4)
    output, _ = exportable_attention(query, key, value, mask, scaling=0.4)
    real = keep_BN[:, None, :, None]
    torch.testing.assert_close(output * real, expected * real, rtol=1e-5, atol=1e-6)


def test_its_graph_serves_all_lengths() -> None:
    class Attention(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor, rows: Tensor) -> Tensor:
            keep_BN = rows[:, 0] >= 0
            mask = SparseMask(keep_BN, rows, rows, Local(2)(LayerInput(keep_BN)).diagonals_BHK)
            return exportable_attention(query, key, value, mask, scaling=0.4)[0]

    def example(num_tokens: int, opened: int) -> tuple[Tensor, ...]:
        query, key, value = torch.randn(3, 1, HEADS, num_tokens, 8)
        rows = torch.zeros(1, 1, num_tokens)
        rows[..., :opened] = 1
        return query, key, value, rows

    tokens = torch.export.Dim("tokens", min=2, max=200)
    shapes = [{2: tokens}] * 4
    graph = torch.export.export(
        Attention(), example(21, 3), dynamic_shapes=shapes, strict=False
    ).module()
    for num_tokens, opened in ((2, 0), (16, 16), (40, 1), (200, 30)):
        given_ = example(num_tokens, opened)
        torch.testing.assert_close(graph(*given_), Attention()(*given_))


def test_it_is_for_inference() -> None:
    mask = Local(1)(LayerInput(keep_of([5])))
    query, key, value = torch.randn(3, 1, HEADS, 5, 4)
    with pytest.raises(ValueError, match="for inference"):
        exportable_attention(query, key, value, mask, scaling=1.0, dropout=0.1)
    mask = SparseMask(mask.keep_BN, rows_BHN=torch.ones(1, 1, 5, requires_grad=True))
    with pytest.raises(ValueError, match="for inference"):
        exportable_attention(query, key, value, mask, scaling=1.0)
