"""Sparse attention patterns, fixed and learned, for Transformer encoders."""

from aaa.patterns import Axis, Full, Global, Local, Pattern, Random
from aaa.sparsify import sparsify

__all__ = ["Axis", "Full", "Global", "Local", "Pattern", "Random", "sparsify"]
