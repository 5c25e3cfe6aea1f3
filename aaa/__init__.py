"""Sparse attention patterns, fixed and learned, for Transformer encoders."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aaa.objective import sparsity, sparsity_loss
    from aaa.patterns import (
        Axis,
        Degree,
        Diagonal,
        FixedDiagonal,
        Full,
        Global,
        InLayers,
        Lexical,
        Local,
        Pattern,
        Random,
        Syntax,
    )
    from aaa.saved import load_sparse
    from aaa.sparse import gate_parameters, latest_masks, sparsify

__all__ = [
    "Axis",
    "Degree",
    "Diagonal",
    "FixedDiagonal",
    "Full",
    "Global",
    "InLayers",
    "Lexical",
    "Local",
    "Pattern",
    "Random",
    "Syntax",
    "gate_parameters",
    "latest_masks",
    "load_sparse",
    "sparsify",
    "sparsity",
    "sparsity_loss",
]

_HOME = {
    **dict.fromkeys(("sparsity", "sparsity_loss"), "aaa.objective"),
    **dict.fromkeys(("gate_parameters", "latest_masks", "sparsify"), "aaa.sparse"),
    "load_sparse": "aaa.saved",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is asked for, so that ``aaa --help`` need not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'aaa' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME.get(name, "aaa.patterns")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
