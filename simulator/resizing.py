"""Pools that grow and shrink in virtual time."""

import asyncio
from collections import Counter

from heliostat.spec import Spec
from heliostat.wire import PoolKey, Role
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
        outside, tokens, let_in = self._doors()
        readings = {
            key: self._fleet.reading(key, outside[key], tokens[key], let_in[key])
            for key in self._pools
            if key in self._fleet.names
        }
        now_s = asyncio.get_running_loop().time()
        for key, wanted in self._scaler.wanted(readings, now_s).items():
            if wanted.replicas != self._fleet.size(key):
                self.resized += 1
                self._fleet.resize(key, wanted.replicas, self._start_s(key))

    def _start_s(self, key: PoolKey) -> float:
        start_s = self._scaling.start_s
        return self._pools[key].autoscale.start_s if start_s is None else start_s

    def _doors(self) -> tuple[Counter[PoolKey], Counter[PoolKey], Counter[PoolKey]]:
        """Of all routers: requests that wait for slots of a decode pool, the prompt tokens that will come to
        a prefill pool with them, and requests that got a slot."""
        outside: Counter[PoolKey] = Counter()
        tokens: Counter[PoolKey] = Counter()
        let_in: Counter[PoolKey] = Counter()
        for router in self._routers:
            if router.admission is None:
                continue
            for name, model in self._spec.models.items():
                counts = router.admission.counts(name)
                let_in[Role.DECODE, model.decode] += counts.admitted
                outside[Role.DECODE, model.decode] += counts.queued
                tokens[Role.PREFILL, model.prefill] += counts.queued_tokens
        return outside, tokens, let_in
