"""The whole story of a request: prefill, ticket, decode, stream; and what happens when a leg fails.

    x_1 … x_{N-1} ──> prefill pool ──> ticket ──┐
    x_1 … x_N ────────────────────> decode pool ┴──> token frames

The decode replica is chosen after the prefill, on the freshest telemetry; or, when the spec says early,
when the last chunk of a long prompt begins, so that its KV moves while that is computed. A failed handoff
is repaired by a fresh prefill, never by prefilling in the decode pool (rule 5).
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from heliostat.errors import HandoffFailedError, PrefillFailedError, RequestError, UnknownModelError
from heliostat.wire import DecodeRequest, PrefillRequest, PrefillResult, Ticket, TokenFrame

MAX_ATTEMPTS = 2
"""Tries per request before its first token. One repair covers a lost replica or an expired ticket."""


class PrefillPool(Protocol):
    """A prefill pool as the pipeline sees it; each call goes to the replica that its policy chooses."""

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        """Raises PrefillFailedError or PoolUnavailableError."""

    def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        """The same, with a streamed ticket before the result for a long prompt. Closing it aborts the leg."""

    async def release(self, ticket: Ticket) -> None:
        """Drop KV that nobody will fetch."""


class DecodePool(Protocol):
    """A decode pool as the pipeline sees it."""

    def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        """Raises HandoffFailedError or PoolUnavailableError. Closing it aborts the leg."""


@dataclass(frozen=True, slots=True)
class Route:
    """The two pools behind a model's name."""

    prefill: PrefillPool
    decode: DecodePool
    whole_prompt: bool = False
    """Whether prefills get x_N, too (`heliostat.spec.Connector`)."""


@dataclass(slots=True)
class Trace:
    """What became of one request, filled in while it runs: replicas, tokens from cache, handoff cost."""

    prefill_replica: str | None = None
    decode_replica: str | None = None
    cached_tokens: int = 0
    handoff_bytes: int = 0
    save_ms: float = 0.0
    load_ms: float = 0.0
    attempts: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One request as the pipeline runs it: `token_ids` is x_1 … x_N, `sampling` is opaque."""

    request_id: str
    model: str
    token_ids: tuple[int, ...]
    sampling: bytes
    trace: Trace


class Pipeline:
    """Runs requests over the routes of a spec's models."""

    def __init__(self, routes: Mapping[str, Route], *, early: bool = False) -> None:
        self._routes = routes
        self._early = early

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenFrame, None]:
        """Frames of one request. Closing the generator aborts the running leg and frees its KV.

        Raises UnknownModelError, PrefillFailedError, HandoffFailedError or PoolUnavailableError.
        """
        route = self._routes.get(request.model)
        if route is None:
            raise UnknownModelError(f"The model `{request.model}` does not exist.")
        while True:
            request.trace.attempts += 1
            started = False
            try:
                async with aclosing(self._attempt(route, request)) as frames:
                    async for frame in frames:
                        started = True
                        yield frame
                return
            except (PrefillFailedError, HandoffFailedError) as error:
                request.trace.failures.append(error.message)
                if started or request.trace.attempts >= MAX_ATTEMPTS:
                    raise

    async def _attempt(self, route: Route, request: GenerateRequest) -> AsyncGenerator[TokenFrame, None]:
        async with self._prefill(route, request) as ticket:
            arrived = False
            try:
                leg = DecodeRequest(
                    self._leg_id(request), request.model, request.token_ids, ticket, request.sampling
                )
                async with aclosing(route.decode.decode(leg)) as frames:
                    async for frame in frames:
                        arrived = True  # the decode replica has read the KV and released its name
                        request.trace.decode_replica = frame.load.replica
                        request.trace.load_ms = frame.load_ms or request.trace.load_ms
                        yield frame
            finally:
                if ticket is not None and not arrived:
                    await route.prefill.release(ticket)

    @asynccontextmanager
    async def _prefill(self, route: Route, request: GenerateRequest) -> AsyncGenerator[Ticket | None, None]:
        """The ticket of x_1 … x_{N-1}; None for a prompt of one token, which has nothing to prefill."""
        if len(request.token_ids) == 1:
            yield None
            return
        ids = request.token_ids if route.whole_prompt else request.token_ids[:-1]
        leg = PrefillRequest(self._leg_id(request), request.model, ids)
        if not self._early:
            yield self._noted(request.trace, await route.prefill.prefill(leg))
            return
        async with aclosing(route.prefill.prefill_early(leg)) as results:
            ticket = self._noted(request.trace, await anext(results))
            rest = asyncio.create_task(self._drain(request.trace, results))
            try:
                yield ticket
                await rest  # which is over, or was just said: its KV has been read
            finally:
                rest.cancel()
                await asyncio.wait({rest})

    async def _drain(self, trace: Trace, results: AsyncGenerator[PrefillResult, None]) -> None:
        """The end of an early prefill. If it fails, so does the load of its KV, and that is what counts."""
        with suppress(RequestError):
            async for result in results:
                self._noted(trace, result)

    @staticmethod
    def _noted(trace: Trace, result: PrefillResult) -> Ticket:
        trace.prefill_replica = result.load.replica
        trace.cached_tokens = result.cached_tokens
        trace.handoff_bytes = result.ticket.num_bytes
        trace.save_ms = result.save_ms
        return result.ticket

    @staticmethod
    def _leg_id(request: GenerateRequest) -> str:
        """Engines refuse an id that they still hold, so a repaired leg gets a new one."""
        return f"{request.request_id}-{request.trace.attempts}"
