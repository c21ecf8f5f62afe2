"""Pools that grow and shrink in virtual time."""

import asyncio
from collections import Counter

from heliostat.spec import Spec
from heliostat.wire import Role
from router.scaling import PoolKey
from simulator.fleet import Fleet
from simulator.router import Router
from simulator.scaling import Scaling


class Resizing:
    """Reads the pools and resizes them every `period_s`, until cancelled."""

    def __init__(self, spec: Spec, scaling: Scaling, fleet: Fleet, routers: list[Router]) -> None:
        self._spec = spec
        self._scaling = scaling
        self._fleet = fleet
        self._routers = routers
        self._scaler = scaling.make(spec)
        self._pools = spec.pools()
        self.resized = 0
        """How often a pool got another size."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._scaling.period_s)
            self._fleet.settle()
            self._decide()

    def _decide(self) -> None:
        queued = self._queued()
        readings = {
            key: self._fleet.reading(key, queued[key]) for key in self._pools if key in self._fleet.names
        }
        now_s = asyncio.get_running_loop().time()
        for key, wanted in self._scaler.wanted(readings, now_s).items():
            if wanted.replicas != self._fleet.size(key):
                self.resized += 1
                self._fleet.resize(key, wanted.replicas, self._start_s(key))

    def _start_s(self, key: PoolKey) -> float:
        start_s = self._scaling.start_s
        return self._pools[key].autoscale.start_s if start_s is None else start_s

    def _queued(self) -> Counter[PoolKey]:
        """Requests that wait in routers for a slot of a decode pool."""
        queued: Counter[PoolKey] = Counter()
        for router in self._routers:
            for name, model in self._spec.models.items():
                if router.admission is not None:
                    queued[Role.DECODE, model.decode] += router.admission.counts(name).queued
        return queued
