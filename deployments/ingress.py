"""The router as a Serve deployment: the composition of frontend, pipeline and pools in one replica."""

import asyncio
import gc
import logging
import os
import random
import time
from collections.abc import Mapping

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments import board
from deployments.catalog import CatalogDesk
from deployments.catalog_files import spec_models
from deployments.catalog_handles import PoolReplicas, RouterPeers
from deployments.catalog_live import LiveModels, root
from deployments.cluster_view import ServeClusterView
from deployments.logs import pass_on_logs
from deployments.metrics import Metrics
from deployments.names import replica_name
from deployments.pools import ServeDecodePool, ServePrefillPool
from deployments.reach import reachable_host
from deployments.scrape_targets import scrape_targets
from deployments.weights import local_weights
from heliostat.spec import Spec
from heliostat.status import ClusterStatus, RouterStatus
from heliostat.wire import Door, Load, PoolKey, Role
from router.accounts import Accounts
from router.admission import Admission
from router.catalog import Catalog, ServedAdapter, ServedModel, Snapshot
from router.channel.inbox import Inbox
from router.frontend.api_keys import keys_from
from router.live_counts import with_live
from router.loop_watch import LoopWatch
from router.pairing import Side, VersionPairing
from router.pipeline import Pipeline
from router.request_log import RequestLog
from router.requests import RequestDesk
from router.route import Route
from router.tracing.setup import start_traces

logger = logging.getLogger(__name__)

PUMP_S = 0.1
"""Between two looks of admission at the pools; a slot that is given back is granted again at once."""

EXCHANGE_S = 10.0
"""Between two looks at what the other routers know; a change itself does not wait for it."""

HEARD_S = 3.0
"""How long a router that starts waits for the first answer of each pool; one may be down for longer."""

PUBLISH_S = 1.0
"""Between two looks of Ray's metrics at ours."""


@serve.ingress()
class Router:
    """One router replica: HTTP in, token streams out, no engine inside."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, spec: Spec, handles: Mapping[PoolKey, DeploymentHandle]
    ) -> None:
        # Imported here, because whoever only builds the application must not wait for vLLM's import.
        from router.frontend.app import build_app
        from router.frontend.openai import ModelServing, OpenAILayer
        from router.frontend.scrape import add_scrape_route

        self._keys = keys_from(os.environ)
        self._spec = spec
        pass_on_logs(spec.observability.logs)
        served = spec_models(spec)
        board.SPEC = spec  # before the first call through a handle
        board.BOARD.index.resize(spec.router.prefix_blocks)
        self._inbox = Inbox(
            reachable_host(spec.transfer),
            self._on_load,
            self._on_lost,
            board.BOARD.kv_changed,
            first_token_s=spec.router.first_token_s,
            idle_s=spec.router.idle_s,
        )
        self._cluster = ServeClusterView(spec, served, handles, board.BOARD, self._inbox.address, self._door)
        self._served = served
        self._make_pools(handles)
        self._admission = Admission(spec, self._cluster, time.monotonic, spec.router.replicas)
        self._accounts = Accounts(spec)
        self._loop_watch = LoopWatch(asyncio.get_running_loop())
        self._metrics = Metrics(
            spec, self._accounts, self._admission, self._cluster, self._loop_watch, board.ROUTING
        )
        routes = {name: self._route(model) for name, model in served.items()}
        pipeline = Pipeline(
            routes,
            self._admission,
            self._accounts,
            early=spec.transfer.decode_choice == "early",
        )
        self._listening = asyncio.create_task(self._inbox.start())
        self._cluster.start()
        self._loop_watch.start()
        self._pump()
        self._publish()
        layer = OpenAILayer(
            local_weights(spec.family.base),
            spec.family,
            pipeline,
            self._cluster.unavailable,
            self._admission,
            spec.router.tool_parser,
        )

        def make_serving(name: str, model: ServedModel) -> ModelServing:
            return layer.serving(name, root(model))

        serving = {name: make_serving(name, model) for name, model in served.items()}
        live = LiveModels(
            served, routes, serving, (self._admission, self._accounts), self._route, make_serving
        )
        context = serve.get_replica_context()
        self._name = context.replica_tag
        self._desk = CatalogDesk(
            spec,
            Catalog(context.replica_tag, time.time_ns),
            live,
            PoolReplicas(handles),
            RouterPeers(context.deployment, context.app_name),
        )
        if spec.router.model_changes:
            await self._desk.exchange()  # before the first request: the others may have added models
            self._exchanging = asyncio.create_task(self._exchange())
            self._exchanging.add_done_callback(_on_end)
        # With the first request it must know who is there: an older router leaves as soon as this one runs.
        await self._cluster.heard(HEARD_S)
        # What is there by now stays, the board and its prefix index among it. Walked through by every
        # full collection, an index of a million blocks stalls the event loop for 36 ms (measured).
        gc.freeze()
        requests = self._observe(replica_name(context.deployment, context.replica_tag))
        self._app = build_app(serving, self._cluster, self._with_router, self._desk, requests, self._keys)
        add_scrape_route(self._app, scrape_targets)

    def _observe(self, replica: str) -> RequestDesk | None:
        """Who hears of requests that are over; None where they are neither traced nor logged."""
        logs = self._spec.observability.logs
        traces = self._spec.observability.traces
        self._sink = start_traces(traces, os.environ, "heliostat-router", replica)
        if self._sink is None and not logs.requests:
            return None
        log = RequestLog(logs.format) if logs.requests else None
        return RequestDesk(self._sink, log, board.ROUTES.take)

    def __del__(self) -> None:
        # Serve calls this at the end of a graceful shutdown.
        if sink := getattr(self, "_sink", None):
            sink.close()

    def _door(self, role: Role, pool: str) -> Door:
        """What waits here for a slot, of the models of that pool."""
        counts = [
            self._admission.counts(name)
            for name, served in self._served.items()
            if served.model.pool(role) == pool
        ]
        return Door(
            sum(each.queued for each in counts),
            sum(each.queued_tokens for each in counts),
            sum(each.admitted for each in counts),
        )

    def _make_pools(self, handles: Mapping[PoolKey, DeploymentHandle]) -> None:
        """Models that share a pool share what stands for it here."""
        first_token_s = self._spec.router.first_token_s
        self._prefill = {
            name: ServePrefillPool(self._cluster.pool(role, name), handle, board.BOARD, first_token_s)
            for (role, name), handle in handles.items()
            if role is Role.PREFILL
        }
        self._decode = {
            name: ServeDecodePool(self._cluster.pool(role, name), handle, board.BOARD, self._inbox)
            for (role, name), handle in handles.items()
            if role is Role.DECODE
        }

    def _route(self, served: ServedModel) -> Route:
        model, prefill, decode = served.model, served.prefill_adapter, served.decode_adapter
        pool = self._spec.decode[model.decode]
        pairing = VersionPairing(
            board.BOARD.roster,
            self._side(Role.PREFILL, model.prefill, prefill),
            self._side(Role.DECODE, model.decode, decode),
            random.random,
            untrained_pair=model.untrained_pair,
        )
        return Route(
            self._prefill[model.prefill],
            self._decode[model.decode],
            whole_prompt=self._spec.transfer.connector is not None,
            prefill_adapter=prefill.adapter if prefill else None,
            decode_adapter=decode.adapter if decode else None,
            local_prefill_tokens=pool.local_prefill_tokens if pool.icarus else None,
            pairing=pairing,
            untrained_pair=model.untrained_pair,
        )

    def _side(self, role: Role, name: str, adapter: ServedAdapter | None) -> Side:
        view, pool = self._cluster.pool(role, name), self._spec.pools()[role, name]
        return Side(lambda: view.names, pool.weights, adapter.adapter if adapter else None)

    async def adopt(self, snapshot: Snapshot) -> None:
        """Another router tells what it knows of models that came and went."""
        self._desk.adopt(snapshot)

    async def catalog(self) -> Snapshot:
        """What this router knows of them; one that starts asks."""
        return self._desk.snapshot()

    async def _exchange(self) -> None:
        """What a router missed while it started, or while it was slow, it learns here."""
        while True:
            await asyncio.sleep(EXCHANGE_S)
            await self._desk.exchange()

    def _on_load(self, load: Load) -> None:
        board.BOARD.observe(load)

    def _pump(self) -> None:
        """Loads come with every engine step; admission looks at them this often."""
        # Set before the work: whatever goes wrong in one look, the next one comes.
        asyncio.get_running_loop().call_later(PUMP_S, self._pump)
        self._admission.pump()

    def _with_router(self, status: ClusterStatus) -> ClusterStatus:
        router = RouterStatus(
            pid=os.getpid(),
            name=self._name,
            replicas=self._spec.router.replicas,
            streams=self._inbox.num_streams,
            loop_stall_p99_ms=self._loop_watch.p99_ms(),
        )
        models = with_live(self._accounts.to_status(), self._admission)
        return status.model_copy(update={"models": models, "router": router})

    def _publish(self) -> None:
        asyncio.get_running_loop().call_later(PUBLISH_S, self._publish)
        self._metrics.publish()

    def _on_lost(self, replica: str) -> None:
        board.BOARD.failed(replica, lost=True)
        self._cluster.lost(replica)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Serve asks for the application after the constructor (`serve.ingress` without an app)."""
        return self._app


def _on_end(exchange: "asyncio.Task[None]") -> None:
    """It ends with the router, or by a mistake of ours that must not stay silent."""
    if not exchange.cancelled() and (error := exchange.exception()):
        logger.error("the exchange of models with other routers ended", exc_info=error)
