"""The router as a Serve deployment: the composition of frontend, pipeline and pools in one replica."""

import asyncio
import gc
import os
import time
from collections.abc import Mapping

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments import board
from deployments.cluster_view import ServeClusterView
from deployments.metrics import Metrics
from deployments.pools import ServeDecodePool, ServePrefillPool
from deployments.reach import reachable_host
from deployments.weights import local_weights
from heliostat.spec import Spec
from heliostat.status import ClusterStatus, RouterStatus
from heliostat.wire import Load, Role
from router.accounts import Accounts
from router.admission import Admission
from router.channel.inbox import Inbox
from router.loop_watch import LoopWatch
from router.pipeline import Pipeline, Route

PUMP_S = 0.1
"""Between two looks of admission at the pools; a slot that is given back is granted again at once."""

PUBLISH_S = 1.0
"""Between two looks of Ray's metrics at ours."""


@serve.ingress()
class Router:
    """One router replica: HTTP in, token streams out, no engine inside."""

    def __init__(
        self, spec: Spec, prefill: Mapping[str, DeploymentHandle], decode: Mapping[str, DeploymentHandle]
    ) -> None:
        # Imported here, because whoever only builds the application must not wait for vLLM's import.
        from router.frontend.app import build_app
        from router.frontend.openai import build_serving

        board.BOARD.index.resize(spec.router.prefix_blocks)
        self._inbox = Inbox(
            reachable_host(spec.transfer),
            self._on_load,
            self._on_lost,
            board.BOARD.kv_changed,
            first_token_s=spec.router.first_token_s,
            idle_s=spec.router.idle_s,
        )
        handles = {(Role.PREFILL, name): handle for name, handle in prefill.items()}
        handles |= {(Role.DECODE, name): handle for name, handle in decode.items()}
        self._cluster = ServeClusterView(spec, handles, board.BOARD, self._inbox.address)
        self._admission = Admission(spec, self._cluster, time.monotonic, spec.router.replicas)
        self._accounts = Accounts(spec)
        self._loop_watch = LoopWatch(asyncio.get_running_loop())
        self._metrics = Metrics(
            spec, self._accounts, self._admission, self._cluster, self._loop_watch, board.ROUTING
        )
        pipeline = Pipeline(
            self._routes(spec, prefill, decode),
            self._admission,
            self._accounts,
            early=spec.transfer.decode_choice == "early",
        )
        self._listening = asyncio.create_task(self._inbox.start())
        self._cluster.start()
        self._loop_watch.start()
        self._pump()
        self._publish()
        roots = {model: f"{route.prefill} + {route.decode}" for model, route in spec.models.items()}
        serving = build_serving(
            roots,
            local_weights(spec.family.base),
            spec.family,
            pipeline,
            self._cluster.unavailable,
            self._admission,
        )
        # What is there by now stays, the board and its prefix index among it. Walked through by every
        # full collection, an index of a million blocks stalls the event loop for 36 ms (measured).
        gc.freeze()
        self._app = build_app(serving, self._cluster, self._with_router)

    def _routes(
        self, spec: Spec, prefill: Mapping[str, DeploymentHandle], decode: Mapping[str, DeploymentHandle]
    ) -> dict[str, Route]:
        """The two pools of each model; models that share a pool share what stands for it here."""
        prefill_pools = {
            name: ServePrefillPool(
                self._cluster.pool(Role.PREFILL, name), handle, board.BOARD, spec.router.first_token_s
            )
            for name, handle in prefill.items()
        }
        decode_pools = {
            name: ServeDecodePool(self._cluster.pool(Role.DECODE, name), handle, board.BOARD, self._inbox)
            for name, handle in decode.items()
        }
        whole_prompt = spec.transfer.connector is not None
        return {
            model: Route(prefill_pools[route.prefill], decode_pools[route.decode], whole_prompt)
            for model, route in spec.models.items()
        }

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
            streams=self._inbox.num_streams,
            loop_stall_p99_ms=self._loop_watch.p99_ms(),
        )
        return status.model_copy(update={"models": self._accounts.to_status(), "router": router})

    def _publish(self) -> None:
        asyncio.get_running_loop().call_later(PUBLISH_S, self._publish)
        self._metrics.publish()

    def _on_lost(self, replica: str) -> None:
        board.BOARD.failed(replica, lost=True)
        self._cluster.lost(replica)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Serve asks for the application after the constructor (`serve.ingress` without an app)."""
        return self._app
