"""Sparsity: rho of Eq. 9 and the hinge of Eq. 10, of a forward pass or from lengths alone.

Shape suffixes: B batch, L texts, N tokens, K distances (from 1 on).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aaa.masks import SparseMask
from aaa.numbers import check_finite, is_number
from aaa.patterns.base import DistanceGate, LayerInput, LayerSite, Pattern
from aaa.sparse import SparseSelfAttention, gate_parameters, latest_masks, sparse_layers

Windows = Mapping[int, int]  # layers that attend locally by themselves, and their reach
NO_WINDOWS: Windows = MappingProxyType({})
SOME_TEXTS, SOME_DISTANCES = 64, 32  # looked at for gates' shares, and at once


def sparsity(model: nn.Module) -> Tensor:
    """rho of the model's latest forward pass (Eq. 9): a scalar, differentiable in the gates.

    The mean over samples, layers and heads of ``1 - |B| / N^2``, where N is the true length.
    Samples of padding alone do not count.

    Raises:
        ValueError: if the model is dense or has not run yet.
    """
    num_texts = (latest_masks(model)[0].lengths_B > 0).sum().clamp_min(1)
    return sample_sparsity(model).sum() / num_texts


def sample_sparsity(model: nn.Module) -> Tensor:
    """rho of each sample of the model's latest forward pass, the mean over layers: shape (B,).

    0 for a sample of padding alone.

    Raises:
        ValueError: if the model is dense or has not run yet.
    """
    return torch.stack([mask.sparsity() for mask in latest_masks(model)]).mean(0)


def sparsity_loss(model: nn.Module, target: float, alpha: float = 10.0) -> Tensor:
    """``alpha * max(0, target - rho)``, the second term of Eq. 10, for the latest forward pass.

    Add it to the loss of the task before ``backward``::

        loss = model(**batch).loss + sparsity_loss(model, target=0.7)

    Gates get a gradient in training mode alone. ``from_pretrained`` leaves a model in evaluation
    mode: call ``model.train()`` first. There is a warning where that was forgotten.

    Raises:
        ValueError: if ``target`` is no share in [0, 1] or ``alpha`` no finite number; if the model
            is dense, has not run yet, or ran without keeping the gradient of its gates (under
            ``no_grad``, which reentrant gradient checkpointing uses).
    """
    check_finite("sparsity_loss", "alpha", alpha)
    if not (is_number(target) and 0 <= target <= 1):
        raise ValueError(f"sparsity_loss target is a share in [0, 1], not {target!r}")
    rho = sparsity(model)
    learning = torch.is_grad_enabled() and any(p.requires_grad for p in gate_parameters(model))
    if learning and not rho.requires_grad:
        # Not the model's own mode: an encoder inside another module has one of its own.
        if all(layer.training for layer in sparse_layers(model) if layer.pattern.learnable):
            raise ValueError(
                "the gates' gradient was lost in the forward pass: gradient checkpointing must be "
                "non-reentrant, model.gradient_checkpointing_enable({'use_reentrant': False})"
            )
        warnings.warn(
            "the encoder is in evaluation mode: its gates are not drawn and get no gradient, so "
            "sparsity_loss teaches them nothing; call model.train() on it before training",
            stacklevel=2,
        )
    return alpha * torch.relu(target - rho)


def sparsity_of_lengths(
    pattern: Pattern, lengths: Sequence[int], num_layers: int, windows: Windows = NO_WINDOWS
) -> float:
    """rho (Eq. 9) of a fixed pattern on texts of the given true lengths, without any model.

    With ``pattern.closed()`` this is the highest rho that a learnable pattern can reach there.

    Raises:
        ValueError: if the pattern is learnable, since its rho then depends on the text.
    """
    distinct, counts = torch.tensor(lengths).unique(return_counts=True)
    rho = sparsity_by_length(pattern, distinct, num_layers, windows)
    return float((rho * counts).sum() / counts.sum())


def sparsity_by_length(
    pattern: Pattern, lengths: Tensor, num_layers: int, windows: Windows = NO_WINDOWS
) -> Tensor:
    """rho of a fixed pattern on a text of each of the given lengths, float64 of the same shape.

    ``windows`` are those of layers that attend locally by themselves.

    Raises:
        ValueError: if the pattern is learnable, since its rho then depends on the text.
    """
    if pattern.learnable:
        raise ValueError(
            f"the sparsity of {pattern} is learned: it does not follow from lengths alone"
        )
    total = torch.zeros(len(lengths), dtype=torch.float64)
    for layer in range(num_layers):
        site = LayerSite(layer, num_layers, hidden_size=1, num_heads=0)
        bound = pattern.bind(site).of_lengths()
        chunks = []
        for chunk in lengths.split(64):
            keep_BN = torch.arange(int(chunk.max())) < chunk.unsqueeze(-1)
            mask = replace(bound(LayerInput(keep_BN)), window=windows.get(layer))
            chunks.append(mask.sparsity().double())
        total += torch.cat(chunks)
    return total / num_layers


def gate_shares(model: nn.Module, lengths: Sequence[int]) -> dict[DistanceGate, float]:
    """The gates of a model that open one distance each, with their shares of its cells.

    A share does not count what is open under the layer's pattern whatever its gates are.

    Args:
        model: a sparse one.
        lengths: in tokens, of the texts that shares are the mean of, as rho is.
    """
    ordered = torch.tensor(lengths).sort().values
    some_L = ordered[:: -(-len(ordered) // SOME_TEXTS)]
    gates_of: dict[Pattern, list[DistanceGate]] = {}  # several layers may share a pattern
    shares: dict[DistanceGate, float] = {}
    all_calls = 0
    for layer in sparse_layers(model):
        calls = layer.masks.maxlen or 0
        all_calls += calls
        parts = [part for part in layer.pattern.modules() if isinstance(part, Pattern)]
        for part in parts:
            gates_of.setdefault(part, part.distance_gates())
        own = [gate for part in parts for gate in gates_of[part]]
        if not own:
            continue
        farthest = max(gate.distance for gate in own)
        shares_K = _shares(layer, some_L.to(own[0].weights.device), farthest).tolist()
        for gate in own:
            share = shares_K[gate.distance - 1] * gate.heads * calls
            shares[gate] = shares.get(gate, 0.0) + share
    return {gate: share / all_calls for gate, share in shares.items()}


def _shares(layer: SparseSelfAttention, lengths_L: Tensor, farthest: int) -> Tensor:
    """Of a layer's cells those of each distance that are not open anyway; float64, shape (K,)."""
    device = lengths_L.device
    keep_LN = torch.arange(int(lengths_L.max()), device=device) < lengths_L.unsqueeze(-1)
    closed = layer.pattern.closed().of_lengths()
    anyway = replace(closed(LayerInput(keep_LN)), window=layer.window)
    shares = []
    for distances in torch.arange(1, farthest + 1, device=device).split(SOME_DISTANCES):
        one_each = F.one_hot(distances, farthest + 1).float().unsqueeze(0)  # as if heads
        more = SparseMask(keep_LN, diagonals_BHK=one_each, window=layer.window)
        more_LK = (anyway | more).kept_cells().double() - anyway.kept_cells().double()
        shares.append((more_LK / lengths_L.unsqueeze(-1) ** 2).mean(0))
    return torch.cat(shares)
