"""The patterns, one file each."""

from aaa.patterns.axis import Axis
from aaa.patterns.base import LayerInput, LayerSite, Pattern, Union, union
from aaa.patterns.full import Full
from aaa.patterns.global_ import Global
from aaa.patterns.local import Local
from aaa.patterns.random import Random

__all__ = [
    "Axis",
    "Full",
    "Global",
    "LayerInput",
    "LayerSite",
    "Local",
    "Pattern",
    "Random",
    "Union",
    "union",
]
