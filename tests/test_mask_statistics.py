"""rho and shares over a data set do not depend on how it is cut into batches."""

from __future__ import annotations

import pytest
import torch

from aaa import Axis, Full, Local, latest_masks, sparsify
from aaa.mask_statistics import ChosenTokens, MaskStatistics, Statistics
from aaa.masks import SparseMask
from tests.conftest import EncoderFactory
from tests.encoders import randomise_gates


def statistics_of(model: torch.nn.Module, batch: dict[str, torch.Tensor], size: int) -> Statistics:
    statistics = MaskStatistics(num_layers=2)
    with torch.no_grad():
        for start in range(0, 4, size):
            model(**{name: value[start : start + size] for name, value in batch.items()})
            statistics.update(latest_masks(model))
    return statistics.compute()


def learned(make_encoder: EncoderFactory) -> torch.nn.Module:
    model = sparsify(make_encoder(), Axis())
    randomise_gates(model)
    return model


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_do_not_matter(
    make_encoder: EncoderFactory, batch: dict[str, torch.Tensor], size: int
) -> None:
    model = learned(make_encoder)
    whole, parts = statistics_of(model, batch, 4), statistics_of(model, batch, size)
    assert parts["sparsity"] == pytest.approx(whole["sparsity"], abs=1e-9)
    for name in ("row_share", "column_share", "row_count", "column_count"):
        assert parts[name] == pytest.approx(whole[name], abs=1e-9)
    assert 0 < whole["sparsity"] < 1


def test_shares_are_means_over_samples(
    make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]
) -> None:
    model = learned(make_encoder)
    found = statistics_of(model, batch, 4)
    with torch.no_grad():
        model(**batch)
    for layer, mask in enumerate(latest_masks(model)):
        assert mask.columns_BHN is not None
        counts = [
            float(mask.columns_BHN[b, 0, : int(n)].sum()) for b, n in enumerate(mask.lengths_B)
        ]
        shares = [count / float(n) for count, n in zip(counts, mask.lengths_B, strict=True)]
        assert found["column_share"][layer] == pytest.approx(sum(shares) / 4)
        assert found["column_count"][layer] == pytest.approx(sum(counts) / 4)


def test_layers_without_rows_have_no_share(
    make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]
) -> None:
    found = statistics_of(sparsify(make_encoder(), Local(1)), batch, 4)
    assert found["row_share"] == found["column_count"] == [None, None]


def test_full_is_not_sparse(make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]) -> None:
    found = statistics_of(sparsify(make_encoder(), Full()), batch, 4)
    assert found["sparsity"] == 0
    assert found["sparsity_per_layer"] == [0, 0]


# Two texts of 3 and 2 tokens, two layers, two heads; token 7 stands three times.
IDS_BN = torch.tensor([[7, 5, 7], [7, 4, 0]])
KEEP_BN = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()


def two_layers() -> list[SparseMask]:
    rows_BHN = torch.tensor([[[1, 0, 0], [1, 0, 1]], [[1, 1, 1], [0, 1, 1]]]).float()
    columns_BHN = torch.tensor([[[0, 1, 0]], [[0, 0, 0]]]).float()
    first = SparseMask(KEEP_BN, rows_BHN=rows_BHN, columns_BHN=columns_BHN)
    return [first, SparseMask(KEEP_BN, columns_BHN=columns_BHN)]


def test_chosen_tokens_by_hand() -> None:
    tokens = ChosenTokens(vocab_size=9)
    tokens.update(IDS_BN, two_layers())
    # Rows, in one layer: 7 is open in (2 + 1 + 1) of 3 x 2 places, 4 in both heads, 5 never.
    # Columns, in two layers: 5 in both. Padding (token 0) counts for nothing.
    assert tokens.compute() == {
        "rows": [
            {"token": 7, "chosen": pytest.approx(4 / 6), "occurrences": 3},
            {"token": 4, "chosen": 1.0, "occurrences": 1},
        ],
        "columns": [{"token": 5, "chosen": 1.0, "occurrences": 1}],
    }


def test_chosen_tokens_do_not_depend_on_batches() -> None:
    whole, parts = ChosenTokens(vocab_size=9), ChosenTokens(vocab_size=9)
    whole.update(IDS_BN, two_layers())
    for b in range(2):
        masks = [
            SparseMask(
                KEEP_BN[b : b + 1],
                rows_BHN=None if mask.rows_BHN is None else mask.rows_BHN[b : b + 1],
                columns_BHN=mask.columns_BHN[b : b + 1],  # type: ignore[index]
            )
            for mask in two_layers()
        ]
        parts.update(IDS_BN[b : b + 1], masks)
    assert parts.compute() == whole.compute()


def test_no_more_than_twenty_tokens_are_listed() -> None:
    tokens = ChosenTokens(vocab_size=50)
    ids_BN = torch.arange(30).unsqueeze(0)
    keep_BN = torch.ones(1, 30).bool()
    tokens.update(ids_BN, [SparseMask(keep_BN, rows_BHN=torch.ones(1, 1, 30))])
    found = tokens.compute()
    assert len(found["rows"]) == 20
    assert found["columns"] == []
