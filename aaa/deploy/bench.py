"""What a trained model's own masks save on its own texts: time and peak memory, against SDPA."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from aaa.deploy.measure import peak_bytes, seconds
from aaa.sparse import SparseSelfAttention, sparse_layers

Batch = dict[str, Tensor]
Calls = Mapping[str, Callable[[], Any]]


@dataclass
class Cost:
    """Seconds over all batches, and bytes at the worst of them, under each kind of attention."""

    seconds: dict[str, float] = field(default_factory=lambda: {"dense": 0.0, "sparse": 0.0})
    peak_bytes: dict[str, int] = field(default_factory=lambda: {"dense": 0, "sparse": 0})

    def ratio(self, name: str) -> float:
        """Dense over sparse, of ``seconds`` or ``peak_bytes``: above 1 where it saves."""
        values = getattr(self, name)
        return values["dense"] / values["sparse"] if values["sparse"] else math.nan

    def add(self, calls: Calls, device: torch.device, rounds: int) -> None:
        """Measures a call of each kind in turn, several times, and adds the medians."""
        times: dict[str, list[float]] = {kind: [] for kind in calls}
        for call in calls.values():
            call()
        for _ in range(rounds):
            for kind, call in calls.items():
                times[kind].append(seconds(call, device))
        for kind, call in calls.items():
            self.seconds[kind] += statistics.median(times[kind])
            self.peak_bytes[kind] = max(self.peak_bytes[kind], peak_bytes(call, device))


@dataclass
class Costs:
    """Of each layer's attention (mask and executor, without projections) and the whole model.

    ``sparsity`` is rho (Eq. 9) of each layer, the mean over texts.
    """

    layers: list[Cost]
    sparsity: list[float]
    whole: Cost


@dataclass(frozen=True)
class _Call:
    """What one layer's attention was given."""

    layer: SparseSelfAttention
    hidden_BND: Tensor | None
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def sparse(self) -> Any:
        self.layer.hand_over(self.hidden_BND)
        return self.layer(*self.arguments, **self.options)

    def dense(self) -> Tensor:
        query, key, value, keep_BN, _ = self.arguments
        mask = None if bool(keep_BN.all()) else keep_BN[:, None, None, :]
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.options["scaling"]
        )


@torch.inference_mode()
def bench(
    sparse: PreTrainedModel, dense: PreTrainedModel, batches: Sequence[Batch], rounds: int
) -> Iterator[Costs]:
    """Measures batch after batch; after each of them, the costs so far.

    Args:
        sparse: a model of ``load_sparse``.
        dense: the same weights under full attention by SDPA (``load_dense``).
        batches: what the models are called with, on their device.
        rounds: how often each call is timed; the median counts.
    """
    costs = Costs([], [], Cost())
    num_texts = 0
    for batch in batches:
        calls = _calls(sparse, batch)
        if not costs.layers:
            costs = Costs([Cost() for _ in calls], [0.0] * len(calls), Cost())
        for number, (cost, call) in enumerate(zip(costs.layers, calls, strict=True)):
            cost.add({"dense": call.dense, "sparse": call.sparse}, sparse.device, rounds)
            found = call.layer.masks[-1].sparsity().sum()
            costs.sparsity[number] = (costs.sparsity[number] * num_texts + float(found)) / (
                num_texts + len(batch["input_ids"])
            )
        num_texts += len(batch["input_ids"])
        whole = {"dense": partial(dense, **batch), "sparse": partial(sparse, **batch)}
        costs.whole.add(whole, sparse.device, rounds)
        yield costs


def _calls(model: PreTrainedModel, batch: Batch) -> list[_Call]:
    """One forward pass, each layer's attention kept as it was called."""
    calls: list[_Call] = []

    def keep(layer: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        calls.append(_Call(layer, layer.handed.hidden_BND, arguments, options))

    handles = [
        layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in sparse_layers(model)
    ]
    try:
        model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls
