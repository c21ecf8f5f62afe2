"""Ray Serve's default autoscaling policy for simulated pools, restated for virtual time.

What `ray.serve.autoscaling_policy.default_autoscaling_policy` and the delays around it do in Ray 2.60, with
the defaults of `AutoscalingConfig`; `tests/benchmarks/test_autoscaling_serve.py` holds it against Serve's own
code. It is restated because Serve reads the wall clock for its delays.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from heliostat.spec import Spec
from heliostat.wire import PoolKey
from router.scaling import Kind, Reading, Wanted

LOOK_BACK_S = 30.0
UP_DELAY_S = 30.0
DOWN_DELAY_S = 600.0
TARGET_ONGOING = 2.0
"""Defaults of `ray.serve.config.AutoscalingConfig`."""

EPSILON_S = 1e-6
"""Serve's tolerance where it compares delays."""


@dataclass
class ServePool:
    """One deployment's state; `target` is requests per replica (`target_ongoing_requests`)."""

    target: float
    _series: deque[tuple[float, float]] = field(default_factory=deque)
    _direction: int = 0
    _since_s: float | None = None

    def decide(self, requests: float, serving: int, size: int, now_s: float) -> int:
        """The wanted number of replicas before bounds. `requests` are those in replicas and on their way,
        `serving` replicas run, `size` are asked for."""
        self._series.append((now_s, requests))
        while self._series[0][0] < now_s - LOOK_BACK_S:
            self._series.popleft()
        return self.after_delays(desired(self.target, self.mean(now_s), serving, size), serving, size, now_s)

    def mean(self, now_s: float) -> float:
        """Of the series: each value holds until the next one, the last as long as one step before it."""
        points = list(self._series)
        if len(points) == 1:
            return points[0][1]
        steps = [after[0] - before[0] for before, after in pairwise(points)]
        weights = [*steps, steps[-1]]
        return sum(value * weight for (_, value), weight in zip(points, weights, strict=True)) / sum(weights)

    def after_delays(self, wanted: int, serving: int, size: int, now_s: float) -> int:
        """`_apply_delay_logic`: a direction must hold for its delay."""
        if serving == 0 and wanted > 0:
            return wanted
        direction = (wanted > size) - (wanted < size)
        if direction == 0 or direction == -self._direction:
            self._since_s = None
        self._direction = direction
        if direction == 0:
            return size
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s + EPSILON_S < (UP_DELAY_S if direction > 0 else DOWN_DELAY_S):
            return size
        self._direction, self._since_s = 0, None
        return wanted if direction > 0 or size == 1 else max(1, wanted)


def desired(target: float, requests: float, serving: int, size: int) -> int:
    """`replica_queue_length_autoscaling_policy` with scaling factors of 1."""
    if serving == 0:
        return max(1, size) if requests > 0 else size
    wanted = requests / target
    return math.ceil(serving + (wanted - serving))


class ServeScaler:
    """`simulator.scaling.Scaler` with a target for each pool; the default where none is given."""

    def __init__(self, spec: Spec, targets: Mapping[PoolKey, float] | None = None) -> None:
        given = targets or {}
        self._bounds = {key: (pool.replicas.min, pool.replicas.max) for key, pool in spec.pools().items()}
        self._pools = {key: ServePool(given.get(key, TARGET_ONGOING)) for key in self._bounds}

    def wanted(self, readings: Mapping[PoolKey, Reading], now_s: float) -> Mapping[PoolKey, Wanted]:
        found = {}
        for key, reading in readings.items():
            requests = reading.running + reading.waiting
            if reading.serving == 0:
                requests += reading.outside  # Serve's handles hold them
            replicas = self._pools[key].decide(requests, reading.serving, reading.size, now_s)
            least, most = self._bounds[key]
            found[key] = Wanted(min(max(replicas, least), most), Kind.ENOUGH, "")
        return found
