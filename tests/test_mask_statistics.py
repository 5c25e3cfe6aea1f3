"""rho and shares over a data set do not depend on how it is cut into batches."""

from __future__ import annotations

import pytest
import torch

from aaa import Axis, Full, Local, latest_masks, sparsify
from aaa.mask_statistics import MaskStatistics, Statistics
from tests.conftest import EncoderFactory


def statistics_of(model: torch.nn.Module, batch: dict[str, torch.Tensor], size: int) -> Statistics:
    statistics = MaskStatistics(num_layers=2)
    with torch.no_grad():
        for start in range(0, 4, size):
            model(**{name: value[start : start + size] for name, value in batch.items()})
            statistics.update(latest_masks(model))
    return statistics.compute()


def learned(make_encoder: EncoderFactory) -> torch.nn.Module:
    model = sparsify(make_encoder(), Axis())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sparse" in name:
                parameter.normal_(std=0.5)
    return model


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_do_not_matter(
    make_encoder: EncoderFactory, batch: dict[str, torch.Tensor], size: int
) -> None:
    model = learned(make_encoder)
    whole, parts = statistics_of(model, batch, 4), statistics_of(model, batch, size)
    assert parts["sparsity"] == pytest.approx(whole["sparsity"], abs=1e-9)
    assert parts["row_share"] == pytest.approx(whole["row_share"], abs=1e-9)
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
        per_sample = [
            float(mask.columns_BHN[b, 0, : int(n)].mean()) for b, n in enumerate(mask.lengths_B)
        ]
        assert found["column_share"][layer] == pytest.approx(sum(per_sample) / 4)


def test_layers_without_rows_have_no_share(
    make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]
) -> None:
    found = statistics_of(sparsify(make_encoder(), Local(1)), batch, 4)
    assert found["row_share"] == [None, None]


def test_full_is_not_sparse(make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]) -> None:
    found = statistics_of(sparsify(make_encoder(), Full()), batch, 4)
    assert found["sparsity"] == 0
    assert found["sparsity_per_layer"] == [0, 0]
