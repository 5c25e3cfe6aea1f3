"""The patterns, one file each."""

from aaa.patterns.axis import Axis
from aaa.patterns.base import LayerInput, LayerSite, Pattern, Union, union
from aaa.patterns.degree import Degree
from aaa.patterns.diagonal import Diagonal
from aaa.patterns.fixed_diagonal import FixedDiagonal
from aaa.patterns.full import Full
from aaa.patterns.global_ import Global
from aaa.patterns.layers import InLayers
from aaa.patterns.lexical import Lexical
from aaa.patterns.local import Local
from aaa.patterns.random import Random
from aaa.patterns.spec import pattern_from_spec
from aaa.patterns.syntax import Syntax

__all__ = [
    "Axis",
    "Degree",
    "Diagonal",
    "FixedDiagonal",
    "Full",
    "Global",
    "InLayers",
    "LayerInput",
    "LayerSite",
    "Lexical",
    "Local",
    "Pattern",
    "Random",
    "Syntax",
    "Union",
    "pattern_from_spec",
    "union",
]
