"""How many replicas every pool ought to have: one decision over the whole cluster, as a pure function."""

from router.scaling.base import (
    Computed,
    Decision,
    Kind,
    Memory,
    PoolKey,
    Reading,
    ScaledPool,
    Wanted,
)
from router.scaling.policy import decide

__all__ = [
    "Computed",
    "Decision",
    "Kind",
    "Memory",
    "PoolKey",
    "Reading",
    "ScaledPool",
    "Wanted",
    "decide",
]
