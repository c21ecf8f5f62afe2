"""Who decides how many replicas a simulated pool has: production's policy, or another one to compare with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from heliostat.spec import Spec
from heliostat.wire import PoolKey
from router.scaling import Memory, Reading, Wanted, decide
from router.scaling.pools import scaled_pools


class Scaler(Protocol):
    """Decides the sizes of all pools, again and again."""

    def wanted(self, readings: Mapping[PoolKey, Reading], now_s: float) -> Mapping[PoolKey, Wanted]:
        """The sizes; a pool that is left out stays as it is."""


class OwnScaler:
    """`router.scaling`, with its memory."""

    def __init__(self, spec: Spec) -> None:
        self._pools = scaled_pools(spec)
        self._max_gpus = spec.max_gpus
        self._memory = Memory()

    def wanted(self, readings: Mapping[PoolKey, Reading], now_s: float) -> Mapping[PoolKey, Wanted]:
        decision = decide(self._pools, readings, self._memory, now_s, self._max_gpus)
        self._memory = decision.memory
        return decision.wanted


@dataclass(frozen=True)
class Scaling:
    """How pools scale. `start_s` replaces the spec's for every pool: from when a replica is asked for until
    it serves. Pools begin with their `min`, or with `begin` replicas where that names them."""

    make: Callable[[Spec], Scaler] = OwnScaler
    start_s: float | None = None
    period_s: float = 1.0
    begin: Mapping[PoolKey, int] | None = None
