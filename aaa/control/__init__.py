"""How training is brought to its target rho: the hinge of Eq. 10, a multiplier, or a price."""

from aaa.control.controller import Controller
from aaa.control.length_target import LengthTarget
from aaa.control.level import settle_level
from aaa.control.settings import USUAL_ALPHA, AlphaSchedule, Kind, SparsityControl

__all__ = [
    "USUAL_ALPHA",
    "AlphaSchedule",
    "Controller",
    "Kind",
    "LengthTarget",
    "SparsityControl",
    "settle_level",
]
