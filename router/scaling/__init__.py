"""How many replicas every pool ought to have: one decision over the whole cluster, as a pure function."""

from router.scaling.base import Decision, Kind, Memory, Reading, ScaledPool, Served, Wanted
from router.scaling.policy import decide

__all__ = [
    "Decision",
    "Kind",
    "Memory",
    "Reading",
    "ScaledPool",
    "Served",
    "Wanted",
    "decide",
]
