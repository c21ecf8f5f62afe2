"""Models come and go at run time: the order of the steps, so that a model is there wholly or not at all.

    add:     checks ──> adapters on every replica of both pools ──> here ──> every other router ──> answer
    remove:  here ──> every other router ──> adapters that nobody needs any more off the replicas ──> answer

So whoever adds a model can use it at once, wherever the next request lands. A replica that starts later loads
an added adapter on first use, because requests carry it.
"""

import asyncio
import logging
from typing import Protocol

from deployments.catalog_files import ModuleFiles
from heliostat.errors import (
    HeliostatError,
    ModelChangesOffError,
    ModelExistsError,
    UnknownModelError,
)
from heliostat.findings import did_you_mean
from heliostat.spec import Spec
from heliostat.wire import Adapter, Role
from router.catalog import Catalog, Peers, ServedModel, Snapshot
from router.frontend.models import ModelListing, NewModel

logger = logging.getLogger(__name__)


class LiveModels(Protocol):
    """The models of this router (`deployments.catalog_live`)."""

    @property
    def served(self) -> dict[str, ServedModel]:
        """By name; a reader sees every change."""

    def put(self, name: str, served: ServedModel) -> None:
        """Serve it, in the place of another of that name if there is one."""

    def take(self, name: str) -> None:
        """Serve it no longer; running requests finish."""


class PoolAdapters(Protocol):
    """Adapters in the replicas of the pools (`deployments.catalog_handles`)."""

    async def load(self, role: Role, pool: str, adapter: Adapter) -> None:
        """Every replica has it afterwards. Raises RequestError that names the replica where it failed."""

    async def drop(self, role: Role, pool: str, adapter: Adapter) -> None:
        """No replica has to keep it; a replica that is not there needs not hear it."""


class CatalogDesk:
    """`router.frontend.models.ModelDesk` for the whole cluster, at one router."""

    def __init__(
        self, spec: Spec, catalog: Catalog, live: LiveModels, adapters: PoolAdapters, peers: Peers
    ) -> None:
        self._spec, self._catalog, self._live = spec, catalog, live
        self._adapters, self._peers = adapters, peers
        self._files = ModuleFiles(spec)
        self._one_at_a_time = asyncio.Lock()

    def listings(self) -> tuple[ModelListing, ...]:
        return tuple(self._listing(name, served) for name, served in self._live.served.items())

    async def add(self, new: NewModel) -> ModelListing:
        self._must_be_allowed()
        async with self._one_at_a_time:
            self._must_be_free(new.name)
            served = await asyncio.to_thread(self._files.find, new)
            await self._load(served)
            try:
                self._must_be_free(new.name)  # another router may have been faster
                self._live.put(new.name, served)
            except HeliostatError:
                await self._drop_unused(served)
                raise
            self._catalog.add(new.name, served)
            await self._peers.adopt(self._catalog.snapshot())
        return self._listing(new.name, served)

    async def remove(self, name: str) -> ModelListing:
        self._must_be_allowed()
        async with self._one_at_a_time:
            served = self._live.served.get(name)
            if served is None:
                hint = did_you_mean(name, self._live.served, "models")
                raise UnknownModelError(f"The model `{name}` does not exist; {hint}")
            listing = self._listing(name, served)
            self._catalog.remove(name)
            self._live.take(name)
            await self._peers.adopt(self._catalog.snapshot())
            await self._drop_unused(served)
        return listing

    def adopt(self, snapshot: Snapshot) -> None:
        """Another router knows this. Models of pools that this spec does not have are left out."""
        for name, served in self._catalog.merge(snapshot).items():
            if served is None:
                if name in self._live.served:
                    self._live.take(name)
            elif self._has_pools(served):
                self._live.put(name, served)
            else:
                logger.warning("the added model %s is not served: this spec lacks one of its pools", name)

    def snapshot(self) -> Snapshot:
        """What this router knows."""
        return self._catalog.snapshot()

    async def exchange(self) -> None:
        """Take up what the other routers know."""
        for snapshot in await self._peers.snapshots():
            self.adopt(snapshot)

    def _must_be_allowed(self) -> None:
        if not self._spec.router.model_changes:
            raise ModelChangesOffError(
                "the models of this cluster do not change at run time; say `model_changes: true` under "
                "`router` in the spec and serve it again"
            )

    def _must_be_free(self, name: str) -> None:
        if name in self._live.served:
            raise ModelExistsError(
                f"the model `{name}` exists already; remove it first, or take another name"
            )

    def _has_pools(self, served: ServedModel) -> bool:
        return all((role, served.model.pool(role)) in self._spec.pools() for role in Role)

    async def _load(self, served: ServedModel) -> None:
        """Both sides' adapters, or none. Raises RequestError."""
        try:
            for role in Role:
                if adapter := served.adapter(role):
                    await self._adapters.load(role, served.model.pool(role), adapter.adapter)
        except HeliostatError:
            await self._drop_unused(served)
            raise

    async def _drop_unused(self, served: ServedModel) -> None:
        for role in Role:
            mine, pool = served.adapter(role), served.model.pool(role)
            if mine is None or (role, pool) not in self._spec.pools():
                continue
            if not any(other.uses(role, pool, mine.adapter.digest) for other in self._live.served.values()):
                await self._adapters.drop(role, pool, mine.adapter)

    def _listing(self, name: str, served: ServedModel) -> ModelListing:
        prefill, decode = served.prefill_adapter, served.decode_adapter
        return ModelListing(
            name=name,
            prefill=served.model.prefill,
            decode=served.model.decode,
            prefill_adapter=prefill.source if prefill else None,
            decode_adapter=decode.source if decode else None,
            origin="spec" if self._catalog.served(name) is None else "added",
        )
