"""A cluster in virtual time: simulated replicas, production routers, and what passes between them."""

import asyncio
from collections.abc import Mapping, Sequence
from statistics import pstdev

from heliostat.errors import PoolUnavailableError
from heliostat.wire import Load, PoolKey, Role
from simulator.engine.engine import Engine
from simulator.engine.host import Host
from simulator.engine.profile import Profile
from simulator.fleet import Fleet
from simulator.outcome import PoolOutcome
from simulator.resizing import Resizing
from simulator.router import Options, Router
from simulator.topology import Arrangement

QUIET_S = 1.0
"""A replica of which nothing is new says so this often: often enough not to look stale. What the steps of a
run add to its context in that time is not new; it is about a hundredth, and grows everywhere alike."""


class Cluster:
    """Made on a running loop of `simulator.virtual_time`."""

    def __init__(
        self,
        arrangement: Arrangement,
        profiles: Mapping[PoolKey, Profile],
        options: Options,
        *,
        block_tokens: int,
        seed: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.options = options
        self.arrangement = arrangement
        self.profiles = profiles
        self.handoff_bytes = 0
        self.routers: list[Router] = []
        host = Host(options.host_cores, options.front_token_ms) if options.host_cores else None
        self._host = host
        self._told: dict[str, tuple[int, float]] = {}
        """By replica: as of which change every router knows its load, and until when that will do."""
        self.fleet = Fleet(self._sizes(), self._make)
        self.pools = self.fleet.serving
        self.engines = self.fleet.engines
        self.routers = [
            Router(
                number,
                arrangement.spec,
                self.fleet.names,
                options,
                clock=self._loop.time,
                block_tokens=block_tokens,
                seed=seed,
            )
            for number in range(options.routers)
        ]
        self.resizing = (
            Resizing(arrangement.spec, options.scaling, self.fleet, self.routers) if options.scaling else None
        )
        self._beat()

    def _sizes(self) -> dict[PoolKey, int]:
        """The most that a spec allows, or where pools scale what they begin with."""
        scaling = self.options.scaling
        if scaling is None:
            return {key: pool.replicas.max for key, pool in self.arrangement.pools().items()}
        begin = scaling.begin or {}
        return {key: begin.get(key, pool.replicas.min) for key, pool in self.arrangement.pools().items()}

    def _make(self, key: PoolKey, number: int) -> Engine:
        profile, options = self.profiles[key], self.options
        engine = Engine(
            f"{key[0]}.{key[1]}#{number}",
            profile,
            on_load=self._hear_load,
            on_kv=self._hear_kv if options.kv_events and profile.keeps_prefixes else None,
            host=self._host,
            reply_s=options.call_s,
        )
        self._told[engine.name] = (-1, 0.0)
        for router in self.routers:  # none yet for those that are there from the beginning
            router.board.observe(engine.load())
        return engine

    async def awake(self, key: PoolKey) -> None:
        """Waits for the first replica of a pool at 0. Raises PoolUnavailableError when it takes too long."""
        if self.fleet.names[key]:
            return
        limit_s = self.arrangement.pools()[key].autoscale.cold_start_s
        if not await self.fleet.awake(key, limit_s):
            raise PoolUnavailableError(f"{key[0]}.{key[1]} had no replica in {limit_s:g} s")

    async def front(self, router: Router) -> None:
        """What a router computes for a request before its prefill: one request at a time."""
        if not self.options.front_ms:
            return
        async with router.thread:
            if self._host is not None:
                await self._host.compute(self.options.front_ms)
            else:
                await asyncio.sleep(self.options.front_ms / 1e3)

    def _hear_load(self, load: Load) -> None:
        """A step's frames went to every router with a stream there, with the load."""
        told = True
        for router in self.routers:
            if router.streams[load.replica]:
                router.board.observe(load)
            else:
                told = False
        if told:
            self._note_told(self.engines[load.replica])

    def _hear_kv(self, replica: str, added: Sequence[int], removed: Sequence[int]) -> None:
        for router in self.routers:
            self._loop.call_later(self.options.call_s, router.board.kv_changed, replica, added, removed)

    def outcomes(self) -> dict[str, PoolOutcome]:
        """An empty record for each pool, by `role.name`."""
        pools = self.arrangement.pools()
        return {
            f"{role}.{name}": PoolOutcome(name, role, len(engines), max(pools[role, name].gpus, 1))
            for (role, name), engines in self.pools.items()
        }

    def sample(self, pools: Mapping[str, PoolOutcome]) -> None:
        """One more entry in the timelines."""
        for (role, name), engines in self.pools.items():
            outcome = pools[f"{role}.{name}"]
            loads = [engine.load() for engine in engines]
            outcome.running.append(sum(load.running for load in loads))
            outcome.waiting.append(sum(load.waiting for load in loads))
            outcome.kv_use.append(sum(load.kv_use for load in loads) / max(len(loads), 1))
            outcome.spread.append(pstdev([load.running + load.waiting for load in loads] or [0]))
            outcome.sizes.append(self.fleet.size((role, name)))

    def settle(self, pools: Mapping[str, PoolOutcome], until_s: float) -> None:
        """The sums over a pool's replicas, also those that are gone; replicas count until `until_s`."""
        self.fleet.settle()
        for role, name in self.pools:
            outcome, engines = pools[f"{role}.{name}"], self.fleet.ever((role, name))
            outcome.replicas = max([*outcome.sizes, outcome.replicas])
            outcome.replica_s = self.fleet.replica_s((role, name), until_s)
            outcome.held_s = self.fleet.replica_s((role, name), self._loop.time())
            outcome.busy_s = sum(engine.meter.busy_s for engine in engines)
            outcome.steps = sum(engine.meter.steps for engine in engines)
            outcome.step_requests = sum(engine.meter.step_requests for engine in engines)
            outcome.preemptions = sum(engine.preemptions for engine in engines)

    async def beats(self) -> None:
        """Every replica tells every router how it is, again and again, until cancelled."""
        next_progress_s = 0.0
        while True:
            await asyncio.sleep(self.options.beat_s)
            if self._loop.time() >= next_progress_s:
                next_progress_s = self._loop.time() + self.options.progress_s
                for (role, _), engines in self.pools.items():
                    if role is Role.DECODE:  # the others have no output to tell of
                        for engine in engines:
                            engine.report_progress()
            self._beat()

    def _beat(self) -> None:
        now, told = self._loop.time(), self._told
        for engine in [engine for engines in self.pools.values() for engine in engines]:
            changes, quiet_until_s = told[engine.name]
            if engine.changes == changes and now < quiet_until_s:
                continue
            self._note_told(engine)
            load = engine.load()
            for router in self.routers:
                router.board.observe(load)
        for router in self.routers:
            if router.admission is not None:
                router.admission.pump()

    def _note_told(self, engine: Engine) -> None:
        self._told[engine.name] = engine.changes, self._loop.time() + QUIET_S
