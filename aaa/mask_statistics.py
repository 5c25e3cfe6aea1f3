"""Mask statistics over a data set, exact under any number of processes."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor
from torchmetrics.metric import Metric

from aaa.masks import SparseMask

MOST_CHOSEN = 20  # tokens that are listed


class Statistics(TypedDict):
    """``sparsity`` is rho of Eq. 9; the lists have one entry a layer.

    A count is the mean over samples and heads of the number of a sample's tokens whose whole row
    (column) is open, a share that of their share in the sample's tokens (Table 6); None for a
    layer whose pattern has no rows (columns).
    """

    sparsity: float
    sparsity_per_layer: list[float]
    row_share: list[float | None]
    column_share: list[float | None]
    row_count: list[float | None]
    column_count: list[float | None]


class ChosenToken(TypedDict):
    """A token (its id), the share of its occurrences that are chosen, and their number.

    The share is the mean over layers and heads.
    """

    token: int
    chosen: float
    occurrences: int


class MaskStatistics(Metric):
    """rho (Eq. 9), overall and per layer, and how many rows and columns are open.

    ``update`` takes the masks of one forward pass (``latest_masks(model)``), one per layer. Sums
    and counts are kept in float64 and added up over processes, so neither the batch size nor the
    number of processes changes the result.
    """

    full_state_update = False
    sums_5L: Tensor
    samples: Tensor

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        zeros = torch.zeros(5, num_layers, dtype=torch.float64)
        self.add_state("sums_5L", zeros, dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, masks: list[SparseMask]) -> None:
        """Adds one batch; samples of padding alone do not count."""
        per_layer = [
            torch.stack([mask.sparsity().double().sum(), *_open_axes(mask)]) for mask in masks
        ]
        self.sums_5L += torch.stack(per_layer, dim=1).detach().to(self.sums_5L.device)
        self.samples += (masks[0].lengths_B > 0).sum().to(self.samples.device)

    def compute(self) -> Statistics:
        """The statistics over all samples seen by all processes."""
        sparsity_L, *axes = (self.sums_5L / self.samples).tolist()
        row_share, column_share, row_count, column_count = (
            [None if math.isnan(value) else value for value in values_L] for values_L in axes
        )
        return Statistics(
            sparsity=sum(sparsity_L) / len(sparsity_L),
            sparsity_per_layer=sparsity_L,
            row_share=row_share,
            column_share=column_share,
            row_count=row_count,
            column_count=column_count,
        )


class ChosenTokens(Metric):
    """Which tokens of the vocabulary have their whole row, or column, open most often.

    ``update`` takes the token ids of a batch, (B, N), and its masks, one for each layer that
    counts. Sums are kept in float64 and added up over processes.
    """

    full_state_update = False
    chosen_2V: Tensor
    occurrences_V: Tensor
    layers_2: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        zeros = torch.zeros(2, vocab_size, dtype=torch.float64)
        self.add_state("chosen_2V", zeros, dist_reduce_fx="sum")
        self.add_state("occurrences_V", zeros[0].clone(), dist_reduce_fx="sum")
        self.add_state("layers_2", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="max")

    def update(self, ids_BN: Tensor, masks: list[SparseMask]) -> None:
        """Adds one batch."""
        keep_BN = masks[0].keep_BN
        ids_T = ids_BN[keep_BN]
        self.occurrences_V.index_add_(0, ids_T, torch.ones_like(ids_T, dtype=torch.float64))
        for axis, name in enumerate(("rows_BHN", "columns_BHN")):
            gates = [getattr(mask, name) for mask in masks if getattr(mask, name) is not None]
            self.layers_2[axis] = len(gates)
            for gates_BHN in gates:
                open_BN = _open(gates_BHN, keep_BN).detach()
                self.chosen_2V[axis].index_add_(0, ids_T, open_BN[keep_BN])

    def compute(self) -> dict[str, list[ChosenToken]]:
        """The most often chosen tokens for ``rows`` and for ``columns``, the first the most."""
        return {
            name: self._most(self.chosen_2V[axis], float(self.layers_2[axis]))
            for axis, name in enumerate(("rows", "columns"))
        }

    def _most(self, chosen_V: Tensor, layers: float) -> list[ChosenToken]:
        times, tokens = chosen_V.topk(min(MOST_CHOSEN, len(chosen_V)))
        return [
            ChosenToken(
                token=token,
                chosen=time / (layers * float(self.occurrences_V[token])),
                occurrences=int(self.occurrences_V[token]),
            )
            for time, token in zip(times.tolist(), tokens.tolist(), strict=True)
            if time > 0
        ]


def _open(gates_BHN: Tensor, keep_BN: Tensor) -> Tensor:
    """The mean over heads of the gates of real tokens, float64 of shape (B, N)."""
    return (gates_BHN * keep_BN.unsqueeze(1)).double().mean(1)


def _open_axes(mask: SparseMask) -> list[Tensor]:
    """Sums over samples: shares of open rows and columns, their counts; NaN for no such part."""
    lengths_B = mask.lengths_B.clamp_min(1).double()
    counts = []
    for gates_BHN in (mask.rows_BHN, mask.columns_BHN):
        if gates_BHN is None:
            counts.append(torch.full_like(lengths_B, math.nan))
        else:
            counts.append(_open(gates_BHN, mask.keep_BN).sum(-1))
    return [(count_B / lengths_B).sum() for count_B in counts] + [c_B.sum() for c_B in counts]
