"""The cluster as one router sees it: a beat asks every replica for its load."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from ray.exceptions import RayActorError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

import heliostat
from heliostat.errors import HeliostatError
from heliostat.spec import Spec
from heliostat.status import ClusterStatus, PoolStatus, ReplicaStatus
from heliostat.wire import Load, Role
from router.telemetry import TelemetryBoard

BEAT_S = 1.0
"""Between two beats; reports also ride on every answer, so this only has to notice idle replicas."""

ANSWER_S = 5.0
"""How long a beat waits. A slow answer is no news: whether a replica lives is for Serve's health check."""

logger = logging.getLogger(__name__)

PoolKey = tuple[Role, str]
Answer = TypeVar("Answer", Load, ReplicaStatus)


class ServeClusterView:
    """`router.cluster.ClusterView` over the pools' handles."""

    def __init__(
        self, spec: Spec, handles: Mapping[PoolKey, DeploymentHandle], board: TelemetryBoard
    ) -> None:
        self._spec = spec
        self._handles = handles
        self._board = board
        self._problems: dict[PoolKey, str | None] = {
            key: f"{_label(key)} has not answered yet" for key in spec.pools()
        }
        self._replicas: dict[PoolKey, set[str]] = {}
        self._beats: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to beat on the running event loop."""
        for key in self._handles:
            beat = asyncio.create_task(self._beat(key), name=_label(key))
            beat.add_done_callback(self._on_end)
            self._beats.add(beat)

    def _on_end(self, beat: asyncio.Task[None]) -> None:
        """A beat ends with the router, or by a mistake of ours that must not stay silent."""
        if not beat.cancelled() and (error := beat.exception()):
            logger.error("the telemetry beat of %s ended", beat.get_name(), exc_info=error)

    def pool(self, role: Role, name: str) -> "ViewedPool":
        """One pool, as calls to it see it."""
        return ViewedPool(self, (role, name))

    def answers(self, key: PoolKey) -> bool:
        """Whether the last beat of that pool found a replica."""
        return self._problems[key] is None

    def unavailable(self, model: str) -> str | None:
        route = self._spec.models[model]
        return self._problems[Role.PREFILL, route.prefill] or self._problems[Role.DECODE, route.decode]

    def problem(self) -> str | None:
        return next((problem for problem in self._problems.values() if problem), None)

    async def status(self) -> ClusterStatus:
        pools = await asyncio.gather(*(self._pool_status(key) for key in self._handles))
        return ClusterStatus(version=heliostat.__version__, ready=self.problem() is None, pools=tuple(pools))

    async def _pool_status(self, key: PoolKey) -> PoolStatus:
        try:
            replicas = await self._ask(key, "status", ReplicaStatus)
        except TimeoutError:
            replicas = []
        role, name = key
        return PoolStatus(
            role=role,
            name=name,
            models=tuple(m for m, route in self._spec.models.items() if getattr(route, role) == name),
            replicas=tuple(replicas),
            problem=self._problems[key],
        )

    async def _beat(self, key: PoolKey) -> None:
        while True:
            try:
                loads = await self._ask(key, "load", Load)
            except TimeoutError:
                continue
            for load in loads:
                self._board.observe(load)
            self._replicas[key] = {load.replica for load in loads}
            self._board.keep(name for names in self._replicas.values() for name in names)
            self._problems[key] = None if loads else f"{_label(key)} has no replica that answers"
            await asyncio.sleep(BEAT_S)

    async def _ask(self, key: PoolKey, method: str, kind: type[Answer]) -> list[Answer]:
        """The answers of a pool's replicas; a dead one among them must not hide the others.

        Raises TimeoutError when they are not complete in time.
        """
        try:
            answers = (
                await self._handles[key]
                .broadcast(method)
                .results_async(timeout_s=ANSWER_S, return_exceptions=True)
            )
        except (DeploymentUnavailableError, RayActorError, HeliostatError):
            return []
        return [answer for answer in answers if isinstance(answer, kind)]


@dataclass(frozen=True, slots=True)
class ViewedPool:
    """`deployments.pools.PoolView` over the beats."""

    cluster: ServeClusterView
    key: PoolKey

    @property
    def label(self) -> str:
        return _label(self.key)

    def answers(self) -> bool:
        return self.cluster.answers(self.key)


def _label(key: PoolKey) -> str:
    return f"pool {key[0]}.{key[1]}"
