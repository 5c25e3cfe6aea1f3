"""How training is brought to its target rho: the hinge of Eq. 10, a multiplier, or a price."""

from aaa.control.controller import Controller
from aaa.control.length_target import LengthTarget
from aaa.control.level import settle_level
from aaa.control.settings import USUAL_ALPHA, AlphaSchedule, Kind, SparsityControl
from aaa.control.single_gates import NEAR_ENOUGH, settle_gates

__all__ = [
    "NEAR_ENOUGH",
    "USUAL_ALPHA",
    "AlphaSchedule",
    "Controller",
    "Kind",
    "LengthTarget",
    "SparsityControl",
    "settle_gates",
    "settle_level",
]
