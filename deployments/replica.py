"""One Serve deployment class per role, around one engine."""

import asyncio
import contextlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from ray import serve

from deployments.bringers import Bringers, Claim, noted
from deployments.engine_factory import create_engine, engine_config
from deployments.identity import Identity
from deployments.logs import pass_on_logs
from deployments.names import replica_name
from deployments.replica_metrics import PUBLISH_S, ReplicaMetrics
from deployments.replica_spans import ReplicaSpans
from deployments.scaling_stats import Doors, Stats, to_stats
from heliostat.errors import EngineStartError, HeliostatError
from heliostat.spec import PoolSpec
from heliostat.status import ReplicaStatus
from heliostat.wire import (
    Adapter,
    DecodeRequest,
    DecodeResult,
    Door,
    Load,
    PrefillRequest,
    PrefillResult,
    ReplicaVersion,
    Role,
    adapted_domain,
)
from kvtransfer.owner import make_directory, remove_dead
from router.channel.merge import num_tokens
from router.channel.outbox import Outbox
from router.scaling import Served
from router.tracing.setup import start_traces

NO_DOOR = Door()

logger = logging.getLogger(__name__)

MAX_ABORTED = 4096
"""Ids that are remembered as aborted; the oldest go first."""


class _Replica:
    """What both roles have in common: start, health, load, end."""

    async def __init__(self, spec: PoolSpec) -> None:  # type: ignore[misc]  # Serve awaits it
        context = serve.get_replica_context()
        pool_name = f"{spec.role}.{spec.name}"
        pass_on_logs(spec.observability.logs)
        try:
            config = engine_config(spec, replica_name(context.deployment, context.replica_tag))
            self._engine = create_engine(config, self._kv_changed)
        except EngineStartError:
            raise
        except HeliostatError as error:
            raise EngineStartError(pool_name, str(error), "none: nothing was started") from error
        self._identity = Identity(config.replica, config.version)
        self._domain, self._caches_prefixes = config.domain, config.caches_prefixes
        self._bringers = Bringers()
        self._outbox = Outbox(config.replica, self._engine.load)
        self._doors = Doors()
        self._served = Served()
        traces, service = spec.observability.traces, f"heliostat-{context.deployment}"
        self._sink = start_traces(traces, os.environ, service, config.replica)
        self._spans = ReplicaSpans(self._sink, config.replica)
        # What a replica that was killed here kept is nobody's.
        remove_dead(make_directory(config.transfer))
        await self._engine.start()
        self._metrics = ReplicaMetrics(spec.role, spec.name)
        self._publishing = asyncio.create_task(self._publish())
        self._publishing.add_done_callback(_on_end)

    def _kv_changed(self, replica: str, added: Sequence[int], removed: Sequence[int]) -> None:
        self._outbox.kv_changed(added, removed)
        self._bringers.removed(removed)

    async def load(self, inbox: str = "", door: Door = NO_DOOR) -> Load:
        """Queue, running requests and KV use; from now on also to the router whose `inbox` that is, and
        which says what waits at its door for this pool."""
        if inbox:
            self._doors.heard(inbox, door, time.monotonic())
            await self._outbox.link(inbox)
        return self._engine.load()

    async def identify(self, source: str, partners: tuple[str, ...]) -> ReplicaVersion:
        """Who this replica is. A router asks, and tells what its spec deploys together (`Identity.told`)."""
        return self._identity.told(source, partners)

    def record_autoscaling_stats(self) -> Stats:
        """Serve asks once a second where pools scale, and gives it to `deployments.scaling`."""
        return to_stats(self._engine.load(), self._served, self._doors.all(time.monotonic()))

    async def status(self) -> ReplicaStatus:
        """Load and version for people, with what the handoffs cost."""
        status = await self._engine.status(os.getpid())
        return status.model_copy(update={"weights": self._identity.weights})

    async def _publish(self) -> None:
        """Ray's metrics look at what the replica carries, and at its handoffs."""
        while True:
            status = await self._engine.status(os.getpid())
            self._metrics.publish(self._engine.load(), status.handoffs)
            await asyncio.sleep(PUBLISH_S)

    async def load_adapter(self, adapter: Adapter) -> None:
        """Have an adapter in memory before its first request. Raises HeliostatError."""
        await self._engine.load_adapter(adapter)

    async def drop_adapter(self, digest: str) -> None:
        """No request will ask for this adapter any more."""
        await self._engine.drop_adapter(digest)

    async def check_health(self) -> None:
        """Serve asks; the engine answers. Raises HeliostatError."""
        await self._engine.check_health()

    def __del__(self) -> None:
        # Serve calls this at the end of a graceful shutdown; the engine's processes end here.
        if engine := getattr(self, "_engine", None):
            engine.stop()
        if sink := getattr(self, "_sink", None):
            sink.close()


class PrefillReplica(_Replica):
    """Turns prompts into KV caches and tickets."""

    async def __init__(self, spec: PoolSpec) -> None:  # type: ignore[misc]
        await super().__init__(spec)
        self._reaper = asyncio.create_task(self._reap(spec.transfer.lease_s))

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        """Write the KV of x_1 … x_{N-1}. Raises PrefillFailedError."""
        self._identity.check_prefill(request)
        with self._claim(request) as claim, self._spans.leg(Role.PREFILL, request) as span:
            result = await self._engine.prefill(self._spans.below(span, request))
            if span is not None:
                span.prefilled(result)
            result = replace(result, cross_model_tokens=claim.found(result.cached_tokens))
        self._note(request, result)
        return self._identity.sign(result, request)

    def _claim(self, request: PrefillRequest) -> contextlib.AbstractContextManager[Claim]:
        domain = adapted_domain(self._domain, request.adapter)
        return self._bringers.claim(request.model, domain, request.token_ids)

    def _note(self, request: PrefillRequest, result: PrefillResult) -> None:
        self._served = self._served.with_prompt(len(request.token_ids), result.cached_tokens)

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        """The same; a streamed ticket comes first when the last chunk of a long prompt begins."""
        self._identity.check_prefill(request)
        brought: int | None = None
        with self._claim(request) as claim, self._spans.leg(Role.PREFILL, request) as span:
            results = self._engine.prefill_early(self._spans.below(span, request))
            async with contextlib.aclosing(results):
                async for result in results:
                    if span is not None:
                        span.prefilled(result)
                    if not result.ticket.streamed:  # the last one
                        self._note(request, result)
                    if brought is None:
                        brought = claim.found(result.cached_tokens)
                    yield self._identity.sign(replace(result, cross_model_tokens=brought), request)

    async def release(self, ticket_id: str) -> bool:
        """Drop KV that nobody will fetch."""
        return await self._engine.release(ticket_id)

    async def _reap(self, lease_s: float) -> None:
        """KV whose router or decode replica died is released when its lease ends."""
        while True:
            await asyncio.sleep(lease_s / 2)
            await self._engine.sweep()


class DecodeReplica(_Replica):
    """Turns KV caches into tokens, for all models of its pool in one batch."""

    async def __init__(self, spec: PoolSpec) -> None:  # type: ignore[misc]
        await super().__init__(spec)
        self._aborted: OrderedDict[str, None] = OrderedDict()

    async def decode(self, request: DecodeRequest) -> DecodeResult:
        """One frame per engine step to the router's inbox, until the request is done.

        Raises HandoffFailedError, also when the router is gone, or the KV is not for this module. Cancelling
        it frees the KV.
        """
        self._identity.check_decode(request)
        address, _, number = request.reply_to.partition("#")
        stream, sent = int(number), 0
        link = await self._outbox.link(address)
        try:
            with self._spans.leg(Role.DECODE, request) as span:
                frames = self._engine.decode(self._spans.below(span, request))
                if self._caches_prefixes:
                    frames = noted(self._bringers, self._domain, request, frames)
                async with contextlib.aclosing(frames):
                    if request.request_id not in self._aborted:
                        async for frame in frames:
                            if request.request_id in self._aborted:
                                break
                            if not sent:
                                self._spans.first(span, frame)
                            sent += num_tokens(frame)
                            link.send(stream, frame)
                if span is not None:
                    span.attributes["gen_ai.usage.output_tokens"] = sent
        finally:
            link.forget(stream)
            self._served += Served(requests=1)
        return DecodeResult(self._engine.load(), sent)

    async def abort(self, request_id: str) -> None:
        """Stop a request, also one that has not arrived yet: its cancel may overtake it."""
        self._aborted[request_id] = None
        while len(self._aborted) > MAX_ABORTED:
            self._aborted.popitem(last=False)


def _on_end(publishing: "asyncio.Task[None]") -> None:
    """It ends with the replica, or by a mistake of ours that must not stay silent."""
    if not publishing.cancelled() and (error := publishing.exception()):
        logger.error("the metrics of this replica ended", exc_info=error)
