"""What the catalog says to others over Ray Serve handles: to all routers, and to all replicas of a pool."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar

from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from heliostat.errors import HeliostatError, InvalidRequestError, PoolUnavailableError
from heliostat.wire import Adapter, PoolKey, Role
from router.catalog import Snapshot

PEERS_S = 10.0
"""How long a change waits for the other routers; one that is slower takes it up at the next exchange."""

LOAD_S = 120.0
"""How long all replicas of a pool may take to load an adapter, which may come from slow storage."""

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class RouterPeers:
    """`router.catalog.Peers` over the routers' own deployment, by its name in Serve."""

    def __init__(self, deployment: str, app: str) -> None:
        self._deployment, self._app = deployment, app
        self._handle: DeploymentHandle | None = None

    async def adopt(self, snapshot: Snapshot) -> None:
        await self._ask("adopt", snapshot)

    async def snapshots(self) -> list[Snapshot]:
        return [answer for answer in await self._ask("catalog") if isinstance(answer, dict)]

    async def _ask(self, method: str, *args: Snapshot) -> list[object]:
        """The answers of those routers that are there; the others hear of it at an exchange."""
        if self._handle is None:  # in a thread, because it asks Serve's controller and blocks
            self._handle = await asyncio.to_thread(serve.get_deployment_handle, self._deployment, self._app)
        try:
            return await _answers(self._handle, method, *args, timeout_s=PEERS_S)
        except (DeploymentUnavailableError, RayActorError):
            return []  # this one is the first, or alone
        except TimeoutError:
            logger.warning("not every router answered to %s in %g s", method, PEERS_S)
            return []


class PoolReplicas:
    """`deployments.catalog.PoolAdapters` over the pools' handles."""

    def __init__(self, handles: Mapping[PoolKey, DeploymentHandle]) -> None:
        self._handles = handles

    async def load(self, role: Role, pool: str, adapter: Adapter) -> None:
        label = f"pool {role}.{pool}"
        try:
            answers = await _answers(self._handles[role, pool], "load_adapter", adapter, timeout_s=LOAD_S)
        except (DeploymentUnavailableError, RayActorError) as error:
            raise PoolUnavailableError(
                f"{label} has no replica that could load {adapter.path}; try again when /ready says so"
            ) from error
        except TimeoutError as error:
            raise PoolUnavailableError(
                f"{label}: {adapter.path} was not loaded on every replica in {LOAD_S:g} s; nothing is "
                "changed; try again, or put the adapter on faster storage"
            ) from error
        # A replica that died in these moments loads it when it is back, with the first request.
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        failed = [error for error in failed if not isinstance(error, RayActorError)]
        if failed:
            first = failed[0].cause if isinstance(failed[0], RayTaskError) else failed[0]
            raise InvalidRequestError(
                f"{label}: {len(failed)} of {len(answers)} replicas could not load {adapter.path}, so "
                f"nothing is changed: {first}"
            )

    async def drop(self, role: Role, pool: str, adapter: Adapter) -> None:
        with suppress(DeploymentUnavailableError, RayActorError, TimeoutError):
            for answer in await _answers(
                self._handles[role, pool], "drop_adapter", adapter.digest, timeout_s=LOAD_S
            ):
                if isinstance(answer, HeliostatError):
                    logger.warning("pool %s.%s keeps %s: %s", role, pool, adapter.path, answer)


async def _answers(
    handle: DeploymentHandle, method: str, *args: Snapshot | Adapter | str, timeout_s: float
) -> list[object]:
    """What all replicas answered, exceptions among it. Raises DeploymentUnavailableError, TimeoutError."""
    answers: list[object] = await handle.broadcast(method, *args).results_async(
        timeout_s=timeout_s, return_exceptions=True
    )
    return answers
