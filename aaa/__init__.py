"""Sparse attention patterns, fixed and learned, for Transformer encoders."""

from aaa.objective import sparsity, sparsity_loss
from aaa.patterns import Axis, Full, Global, Local, Pattern, Random
from aaa.sparsify import gate_parameters, latest_masks, sparsify

__all__ = [
    "Axis",
    "Full",
    "Global",
    "Local",
    "Pattern",
    "Random",
    "gate_parameters",
    "latest_masks",
    "sparsify",
    "sparsity",
    "sparsity_loss",
]
