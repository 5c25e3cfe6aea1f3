"""The scores of GLUE, from logits, exact over several processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat

from aaa.names import known_name


def build_metrics(names: Sequence[str], num_labels: int) -> MetricCollection:
    """The metrics of a task.

    ``update(logits, labels)`` takes logits of shape (B, num_labels), for regression (B,) or
    (B, 1), and labels of shape (B,); ``compute()`` gives a scalar tensor for each of ``names``.
    All are shares or correlations, up to 1, not percentages.

    Where a figure is undefined it is 0, without a warning: a correlation if predictions or
    labels are all equal (sklearn does so for Matthews, scipy gives NaN for the others), and F1 if
    class 1 neither occurs nor is predicted. NaN among the predictions gives NaN for correlations.

    Args:
        names: Out of :data:`aaa.data.task.METRICS`.
        num_labels: Number of classes; 1 for regression. F1 is that of class 1 of two.

    Raises:
        ValueError: If a name is unknown.
    """
    for name in names:
        known_name(name, _METRICS, "metric")
    return MetricCollection({name: _METRICS[name](num_labels) for name in names})


class _Counted(MulticlassConfusionMatrix):
    """A figure made of the counts of (label, prediction), which add up over batches and ranks."""

    def __init__(self, num_labels: int) -> None:
        super().__init__(num_labels, validate_args=False)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        super().update(logits.argmax(-1), labels)

    def compute(self) -> Tensor:
        return self.figure(self.confmat.double())  # rows are labels, columns predictions

    def figure(self, counts_CC: Tensor) -> Tensor:
        raise NotImplementedError


class _Accuracy(_Counted):
    def figure(self, counts_CC: Tensor) -> Tensor:
        return _ratio(counts_CC.trace(), counts_CC.sum())


class _F1(_Counted):
    def figure(self, counts_CC: Tensor) -> Tensor:
        return _ratio(2 * counts_CC[1, 1], counts_CC[1].sum() + counts_CC[:, 1].sum())


class _Matthews(_Counted):
    # torchmetrics' own gives 1 where all labels and predictions are of one class, sklearn 0.
    def figure(self, counts_CC: Tensor) -> Tensor:
        labels_C, predictions_C = counts_CC.sum(1), counts_CC.sum(0)
        total = counts_CC.sum()
        return _ratio(
            counts_CC.trace() * total - labels_C @ predictions_C,
            (total**2 - labels_C @ labels_C).sqrt()
            * (total**2 - predictions_C @ predictions_C).sqrt(),
        )


class _Pearson(Metric):
    """Correlation of scores, which are all kept: float64, no running sums that cancel."""

    predictions: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.add_state("predictions", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.predictions.append(logits.detach().float().reshape(-1))
        self.labels.append(labels.detach().float().reshape(-1))

    def compute(self) -> Tensor:
        return self.figure(dim_zero_cat(self.predictions), dim_zero_cat(self.labels))

    def figure(self, predictions_S: Tensor, labels_S: Tensor) -> Tensor:
        return _correlation(predictions_S.double(), labels_S.double())


class _Spearman(_Pearson):
    def figure(self, predictions_S: Tensor, labels_S: Tensor) -> Tensor:
        if predictions_S.isnan().any():
            return predictions_S.new_tensor(torch.nan)
        return _correlation(_ranks(predictions_S), _ranks(labels_S))


_METRICS: dict[str, type[_Counted] | type[_Pearson]] = {
    "accuracy": _Accuracy,
    "f1": _F1,
    "matthews": _Matthews,
    "spearman": _Spearman,
    "pearson": _Pearson,
}


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, 0 where ``whole`` is 0."""
    return torch.where(whole == 0, 0.0, part / whole)


def _ranks(values_S: Tensor) -> Tensor:
    """Ranks from 1; equal values share the mean of theirs."""
    _, group_S, counts = values_S.unique(return_inverse=True, return_counts=True)
    counts = counts.double()
    return (counts.cumsum(0) - (counts - 1) / 2)[group_S]


def _correlation(x_S: Tensor, y_S: Tensor) -> Tensor:
    """Pearson's correlation, 0 if either side is constant."""
    if (x_S == x_S[0]).all() or (y_S == y_S[0]).all():
        return x_S.new_zeros(())
    x_S, y_S = x_S - x_S.mean(), y_S - y_S.mean()
    return (x_S / x_S.norm()) @ (y_S / y_S.norm())
