"""Where the policies of all pools meet: one decision over the whole cluster, in Serve's controller.

Every pool is an application, so Serve asks each about itself alone; but it asks all of them in one process.
In a module of its own, and to be reached through it (`scaling_board.BOARD`), as `deployments.board` says:
Serve pickles a policy's module by value, and what that names as a global is copied.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from deployments.metric_kinds import MetricKinds, RayMetrics
from deployments.scaling_stats import to_door, to_load, to_served
from heliostat.wire import Door, PoolKey
from router.scaling import Kind, Memory, Reading, ScaledPool, Served, Wanted, decide
from router.scaling.readings import read_pool

DECIDE_S = 1.0
"""Between two decisions; Serve asks ten times a second."""

STALE_S = 10.0
"""A pool of which nobody asked for so long is gone: the spec has changed."""

# Below Serve's own logger, whose handlers write the controller's log.
logger = logging.getLogger("ray.serve.heliostat")


@dataclass(frozen=True, slots=True)
class Told:
    """What Serve's context says of a pool: sizes, calls that wait in handles, its replicas' stats by name."""

    size: int
    serving: int
    queued_calls: float
    stats: Mapping[str, Mapping[str, float]]


class _Totals:
    """Counts of replicas that come and go, as one count that only grows."""

    def __init__(self) -> None:
        self._last: dict[str, Served] = {}
        self.total = Served()

    def add(self, replica: str, served: Served) -> None:
        last = self._last.get(replica, Served())
        # A replica that counts from the beginning again is another one.
        self.total += served - last if served.requests >= last.requests else served
        self._last[replica] = served

    def keep(self, replicas: Mapping[str, object]) -> None:
        self._last = {name: served for name, served in self._last.items() if name in replicas}


class ScalingBoard:
    """Each pool's policy tells its figures; once in `DECIDE_S` that decides for all pools at once."""

    def __init__(self, kinds: MetricKinds | None = None) -> None:
        self._kinds = kinds
        self._gauges: _Gauges | None = None
        self._pools: dict[PoolKey, ScaledPool] = {}
        self._readings: dict[PoolKey, Reading] = {}
        self._told_s: dict[PoolKey, float] = {}
        self._totals: dict[PoolKey, _Totals] = {}
        self._wanted: Mapping[PoolKey, Wanted] = {}
        self._memory = Memory()
        self._decided_s = 0.0

    def is_due(self, key: PoolKey, now_s: float) -> bool:
        """Whether the pool's figures are wanted now; else `wanted` has the answer."""
        return now_s - self._told_s.get(key, 0.0) >= DECIDE_S / 2

    def tell(self, pool: ScaledPool, told: Told, max_gpus: int | None, now_s: float) -> None:
        """A pool's figures; now and then followed by a decision."""
        key = pool.key
        self._pools[key], self._told_s[key] = pool, now_s
        self._readings[key] = self._reading(key, told)
        if now_s - self._decided_s >= DECIDE_S:
            self._decided_s = now_s
            self._decide(max_gpus, now_s)

    def wanted(self, key: PoolKey) -> Wanted | None:
        """The last decision on that pool."""
        return self._wanted.get(key)

    def _reading(self, key: PoolKey, told: Told) -> Reading:
        totals = self._totals.setdefault(key, _Totals())
        for replica, stats in told.stats.items():
            totals.add(replica, to_served(stats))
        totals.keep(told.stats)
        # Every replica hears every router; the one that has heard last knows most.
        doors = [to_door(stats) for stats in told.stats.values()]
        door = max(doors, key=lambda each: each.let_in, default=Door())
        loads = [to_load(replica, stats) for replica, stats in told.stats.items()]
        return read_pool(
            told.size, loads, totals.total, door.queued + told.queued_calls, door.queued_tokens, door.let_in
        )

    def _decide(self, max_gpus: int | None, now_s: float) -> None:
        fresh = {key for key, told_s in self._told_s.items() if now_s - told_s <= STALE_S}
        pools = [pool for key, pool in self._pools.items() if key in fresh]
        readings = {key: reading for key, reading in self._readings.items() if key in fresh}
        decision = decide(pools, readings, self._memory, now_s, max_gpus)
        self._memory = decision.memory
        for key, wanted in decision.wanted.items():
            size = readings[key].size
            if wanted.replicas != size and wanted != self._wanted.get(key):
                logger.info("%s.%s: %d -> %d replicas: %s", *key, size, wanted.replicas, wanted.reason)
        self._wanted = decision.wanted
        if self._gauges is None:
            self._gauges = _Gauges(self._kinds or RayMetrics())
        self._gauges.publish(decision.wanted, readings)


class _Gauges:
    """The decision as metrics (docs/observability.md has all)."""

    def __init__(self, kinds: MetricKinds) -> None:
        tags = ("role", "pool")
        self._wanted = kinds.gauge("heliostat_pool_wanted_replicas", "Replicas that autoscaling wants.", tags)
        self._serving = kinds.gauge("heliostat_pool_serving_replicas", "Replicas that Serve runs.", tags)
        self._why = kinds.gauge(
            "heliostat_pool_scaling", "1 for what the wanted size is wanted for, else 0.", (*tags, "kind")
        )

    def publish(self, wanted: Mapping[PoolKey, Wanted], readings: Mapping[PoolKey, Reading]) -> None:
        for key, each in wanted.items():
            tags = {"role": key[0].value, "pool": key[1]}
            self._wanted.set(each.replicas, tags)
            self._serving.set(readings[key].serving, tags)
            for kind in Kind:
                self._why.set(float(kind is each.kind), {**tags, "kind": kind.value})


BOARD: Final = ScalingBoard()
"""This process's. Only that of Serve's controller is told anything."""
