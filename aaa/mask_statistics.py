"""Mask statistics over a data set, exact under any number of processes."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor
from torchmetrics.metric import Metric

from aaa.masks import SparseMask


class Statistics(TypedDict):
    """``sparsity`` is rho of Eq. 9; the lists have one entry a layer.

    A share is the mean over samples and heads of the share of a sample's tokens whose whole row
    (column) is open; None for a layer whose pattern has no rows (columns).
    """

    sparsity: float
    sparsity_per_layer: list[float]
    row_share: list[float | None]
    column_share: list[float | None]


class MaskStatistics(Metric):
    """rho (Eq. 9), overall and per layer, and how many rows and columns are open.

    ``update`` takes the masks of one forward pass (``latest_masks(model)``), one per layer. Sums
    and counts are kept in float64 and added up over processes, so neither the batch size nor the
    number of processes changes the result.
    """

    full_state_update = False
    sums_3L: Tensor
    samples: Tensor

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        zeros = torch.zeros(3, num_layers, dtype=torch.float64)
        self.add_state("sums_3L", zeros, dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, masks: list[SparseMask]) -> None:
        """Adds one batch."""
        per_layer = [
            torch.stack([mask.sparsity().double().sum(), *_open_shares(mask)]) for mask in masks
        ]
        self.sums_3L += torch.stack(per_layer, dim=1).detach().to(self.sums_3L.device)
        self.samples += len(masks[0].keep_BN)

    def compute(self) -> Statistics:
        """The statistics over all samples seen by all processes."""
        sparsity_L, rows_L, columns_L = (self.sums_3L / self.samples).tolist()
        return Statistics(
            sparsity=sum(sparsity_L) / len(sparsity_L),
            sparsity_per_layer=sparsity_L,
            row_share=[None if math.isnan(share) else share for share in rows_L],
            column_share=[None if math.isnan(share) else share for share in columns_L],
        )


def _open_shares(mask: SparseMask) -> tuple[Tensor, Tensor]:
    """Sums over samples of the shares of open rows and open columns; NaN for no such part."""
    lengths_B = mask.lengths_B.clamp_min(1).double()
    shares = []
    for gates_BHN in (mask.rows_BHN, mask.columns_BHN):
        if gates_BHN is None:
            shares.append(lengths_B.new_tensor(math.nan))
        else:
            open_BN = (gates_BHN * mask.keep_BN.unsqueeze(1)).double().mean(1)
            shares.append((open_BN.sum(-1) / lengths_B).sum())
    return shares[0], shares[1]
