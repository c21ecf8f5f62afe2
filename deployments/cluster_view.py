"""The cluster as one router sees it: a beat asks every replica for its load."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

import heliostat
from heliostat.errors import HeliostatError
from heliostat.spec import Spec
from heliostat.status import ClusterStatus, PoolStatus, ReplicaStatus
from heliostat.wire import Door, Load, PoolKey, ReplicaVersion, Role
from router.catalog import ServedModel
from router.pool_figures import PoolFigures
from router.telemetry import TelemetryBoard

BEAT_S = 1.0
"""Between two beats; loads come through the inbox, so this only has to notice replicas that are new."""

SEARCH_S = 0.25
"""Between two beats while a pool has no replica."""

IDENTIFY_S = 5.0
"""Replicas that have said who they are say it again: another router may have told them of new partners."""

ANSWER_S = 5.0
"""How long a beat waits. A slow answer is no news: whether a replica lives is for Serve's health check."""

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer", Load, ReplicaStatus, ReplicaVersion)


class ServeClusterView:
    """`router.cluster.ClusterView` over the pools' handles."""

    def __init__(
        self,
        spec: Spec,
        models: Mapping[str, ServedModel],
        handles: Mapping[PoolKey, DeploymentHandle],
        board: TelemetryBoard,
        inbox_address: str,
        door: Callable[[Role, str], Door] = lambda role, pool: Door(),
    ) -> None:
        """`models` are those that are served; its owner changes it as they come and go. `door` says what
        waits here for a pool."""
        self._spec = spec
        self._models = models
        self._handles = handles
        self._board = board
        self._inbox_address = inbox_address
        self._door = door
        self._cold_start_s = {
            key: pool.autoscale.cold_start_s for key, pool in spec.pools().items() if pool.replicas.min == 0
        }
        self._problems: dict[PoolKey, str | None] = {
            key: None if key in self._cold_start_s else f"{_label(key)} has not answered yet"
            for key in spec.pools()
        }
        self._replicas: dict[PoolKey, set[str]] = {}
        self._failed_legs: Counter[PoolKey] = Counter()
        self._names: dict[PoolKey, tuple[str, ...]] = {}
        self._identified_s: dict[PoolKey, float] = {}
        self._beats: set[asyncio.Task[None]] = set()
        self._heard = asyncio.Event()

    def start(self) -> None:
        """Begin to beat on the running event loop."""
        for key in self._handles:
            beat = asyncio.create_task(self._beat(key), name=_label(key))
            beat.add_done_callback(self._on_end)
            self._beats.add(beat)

    async def heard(self, within_s: float) -> None:
        """Wait until every pool has answered once, but no longer than that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._heard.wait()

    def stop(self) -> None:
        """No more beats; what is known stays."""
        for beat in self._beats:
            beat.cancel()

    def _on_end(self, beat: asyncio.Task[None]) -> None:
        """A beat ends with the router, or by a mistake of ours that must not stay silent."""
        if not beat.cancelled() and (error := beat.exception()):
            logger.error("the telemetry beat of %s ended", beat.get_name(), exc_info=error)

    def pool(self, role: Role, name: str) -> "ViewedPool":
        """One pool, as calls to it see it."""
        return ViewedPool(self, (role, name))

    def names(self, key: PoolKey) -> tuple[str, ...]:
        """That pool's replicas, for all we know; the same tuple as long as they are the same."""
        return self._names.get(key, ())

    def answers(self, key: PoolKey) -> bool:
        """Whether that pool has a replica, for all we know."""
        return bool(self._replicas.get(key))

    def cold_start_s(self, key: PoolKey) -> float:
        """How long a call waits for the pool's first replica; 0 for pools that always have one."""
        return self._cold_start_s.get(key, 0.0)

    def runs(self, key: PoolKey, versions: frozenset[str]) -> bool:
        """Whether that pool has a replica of one of these versions, for all we know."""
        return not versions.isdisjoint(self._board.roster.groups(self.names(key)))

    def slots(self, role: Role, pool: str) -> PoolFigures:
        """`router.admission.PoolCapacity`: what the telemetry board knows of the pool."""
        return self._board.figures(self.names((role, pool)))

    def failed_legs(self, role: Role, pool: str) -> int:
        """`deployments.metrics.PoolFacts`: legs of this router that failed there."""
        return self._failed_legs[role, pool]

    def leg_failed(self, key: PoolKey) -> None:
        """One more."""
        self._failed_legs[key] += 1

    def unavailable(self, model: str) -> str | None:
        served = self._models.get(model)
        if served is None:
            return None  # removed a moment ago: that it does not exist is for admission to say
        problems = (self._problems[role, served.model.pool(role)] for role in Role)
        return next((problem for problem in problems if problem), None)

    def problem(self) -> str | None:
        return next((problem for problem in self._problems.values() if problem), None)

    async def status(self) -> ClusterStatus:
        pools = await asyncio.gather(*(self._pool_status(key) for key in self._handles))
        return ClusterStatus(version=heliostat.__version__, ready=self.problem() is None, pools=tuple(pools))

    async def _pool_status(self, key: PoolKey) -> PoolStatus:
        try:
            replicas = await self._ask(key, ReplicaStatus, "status")
        except TimeoutError:
            replicas = []
        role, name = key
        return PoolStatus(
            role=role,
            name=name,
            models=tuple(m for m, served in self._models.items() if served.model.pool(role) == name),
            replicas=tuple(replicas),
            problem=self._problems[key],
        )

    async def _beat(self, key: PoolKey) -> None:
        while True:
            try:
                loads = await self._ask(key, Load, "load", self._inbox_address, self._door(*key))
            except TimeoutError:
                continue
            for load in loads:
                self._board.observe(load)
            await self._identify(key, {load.replica for load in loads})
            self._set_replicas(key, {load.replica for load in loads})
            self._board.keep(name for names in self._replicas.values() for name in names)
            await asyncio.sleep(BEAT_S if loads else SEARCH_S)

    async def _identify(self, key: PoolKey, replicas: set[str]) -> None:
        """Before any of them counts as there: which version it is. They hear what our spec has on the other
        side, and so does every other router from them."""
        now = asyncio.get_running_loop().time()
        recent = now - self._identified_s.get(key, -IDENTIFY_S) < IDENTIFY_S
        if not replicas or (recent and self._board.roster.knows(replicas)):
            return
        others = self._spec.decode if key[0] is Role.PREFILL else self._spec.prefill
        partners = tuple(sorted({pool.weights for pool in others.values()}))
        try:
            answers = await self._ask(
                key, ReplicaVersion, "identify", self._spec.pools()[key].weights, partners
            )
        except TimeoutError:
            return
        self._identified_s[key] = now
        for answer in answers:
            self._board.roster.observe(answer.replica, answer.version)

    def lost(self, replica: str) -> None:
        """A replica's connection broke: the pool does without it until a beat finds it again."""
        for key, replicas in list(self._replicas.items()):
            if replica in replicas:
                self._set_replicas(key, replicas - {replica})

    def _set_replicas(self, key: PoolKey, replicas: set[str]) -> None:
        if replicas != self._replicas.get(key):
            # The board remembers rows by this very tuple.
            self._names[key] = tuple(sorted(replicas))
        self._replicas[key] = replicas
        there = replicas or key in self._cold_start_s  # at 0, it starts with the next request
        self._problems[key] = None if there else f"{_label(key)} has no replica that answers"
        if self.problem() is None:
            self._heard.set()

    async def _ask(self, key: PoolKey, kind: type[Answer], method: str, *args: object) -> list[Answer]:
        """The answers of a pool's replicas; a dead one among them must not hide the others.

        Raises TimeoutError when they are not complete in time.
        """
        try:
            answers = (
                await self._handles[key]
                .broadcast(method, *args)
                .results_async(timeout_s=ANSWER_S, return_exceptions=True)
            )
        except (DeploymentUnavailableError, RayActorError, HeliostatError):
            return []
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, RayActorError):
                logger.warning("%s: %s failed: %r", _label(key), method, answer)
        return [answer for answer in answers if isinstance(answer, kind)]


@dataclass(frozen=True, slots=True)
class ViewedPool:
    """`deployments.pools.PoolView` over the beats."""

    cluster: ServeClusterView
    key: PoolKey

    @property
    def label(self) -> str:
        return _label(self.key)

    @property
    def names(self) -> tuple[str, ...]:
        return self.cluster.names(self.key)

    @property
    def cold_start_s(self) -> float:
        return self.cluster.cold_start_s(self.key)

    def answers(self) -> bool:
        return self.cluster.answers(self.key)

    def runs(self, versions: frozenset[str]) -> bool:
        return self.cluster.runs(self.key, versions)

    def leg_failed(self) -> None:
        self.cluster.leg_failed(self.key)


def _label(key: PoolKey) -> str:
    return f"pool {key[0]}.{key[1]}"
