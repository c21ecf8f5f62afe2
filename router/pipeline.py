"""The whole story of a request: admit, prefill, ticket, decode, stream; and what happens when a leg fails.

    x_1 … x_{N-1} ──> prefill pool ──> ticket ──┐
    x_1 … x_N ────────────────────> decode pool ┴──> token frames

The decode replica is chosen after the prefill, on the freshest telemetry; or, when the spec says early,
when the last chunk of a long prompt begins, so that its KV moves while that is computed. A failed handoff
is repaired by a fresh prefill, never by prefilling in the decode pool (rule 5). A decode replica that is
lost in mid-stream is replaced: the prompt is prefilled again, and another replica takes the tokens that the
client has as forced input before it goes on (rule 6).

While pools roll, both legs go to versions that belong together, and an answer that has begun ends with the
two that began it (`router.pairing`).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

from heliostat.errors import (
    HandoffFailedError,
    LegFailedError,
    OverloadedError,
    PoolUnavailableError,
    RequestError,
    UnknownModelError,
)
from heliostat.wire import DecodeRequest, PrefillRequest, PrefillResult, Role, Ticket, TokenFrame
from router.accounts import Outcome
from router.door import Admission, Book
from router.match import WAIT, RequestVersions, VersionWait
from router.progress import Progress
from router.route import Route
from router.trace import Leg, Trace, error_type

NOBODY: frozenset[str] = frozenset()
_OUTCOMES: Mapping[type[RequestError], Outcome] = {
    OverloadedError: Outcome.REFUSED,
    PoolUnavailableError: Outcome.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One request as the pipeline runs it: `token_ids` is x_1 … x_N, `sampling` is opaque.

    `bound` says why a lost answer cannot be continued elsewhere, token for token; empty if it can.
    `expected_tokens` (0: not known) and `reuse_soon` are the client's own guesses.
    """

    request_id: str
    model: str
    token_ids: tuple[int, ...]
    sampling: bytes
    trace: Trace
    max_tokens: int = 0
    bound: str = ""
    priority: int = 0
    deadline_s: float | None = None
    session: str = ""
    expected_tokens: int = 0
    reuse_soon: bool = False


class Pipeline:
    """Runs requests over the routes of a spec's models."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        admission: Admission,
        book: Book | None = None,
        *,
        early: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wait: VersionWait = WAIT,
    ) -> None:
        self._routes = routes
        self._admission = admission
        self._book = book
        self._early = early
        self._clock = clock
        self._wait = wait

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[TokenFrame, None]:
        """Frames of one request, without a gap or a repetition. Closing it aborts the running leg.

        Raises UnknownModelError, OverloadedError, PrefillFailedError, HandoffFailedError, VersionsGoneError
        or PoolUnavailableError.
        """
        route = self._routes.get(request.model)
        if route is None:
            raise UnknownModelError(f"The model `{request.model}` does not exist.")
        trace, progress = request.trace, Progress(RequestVersions(route.pairing, self._wait, self._clock))
        trace.request_id, trace.model = request.request_id, request.model
        trace.prompt_tokens, trace.entered_s = len(request.token_ids), self._clock()
        with self._booked(request):
            if len(request.token_ids) > 1:
                # Without a slot: whoever waits for an upgrade must not hold up the pool's other models.
                await progress.versions.writers(NOBODY)
            async with self._admission.slot(
                request.model,
                len(request.token_ids),
                request.max_tokens,
                request.priority,
                request.deadline_s,
                request.expected_tokens,
            ) as slot:
                trace.admitted_s = self._clock()
                while True:
                    trace.attempts += 1
                    progress.fruitless += 1
                    try:
                        async with aclosing(self._attempt(route, request, progress)) as frames:
                            async for frame in frames:
                                slot.served(self._take(trace, progress, frame))
                                yield frame
                        return
                    except LegFailedError as error:
                        trace.failures.append(error.message)
                        if not progress.goes_on(error, request.bound):
                            raise

    @contextmanager
    def _booked(self, request: GenerateRequest) -> Iterator[None]:
        """Whatever becomes of the request, it is booked once."""
        outcome: Outcome | None = None
        try:
            yield
        except RequestError as error:
            outcome = next((to for kind, to in _OUTCOMES.items() if isinstance(error, kind)), Outcome.FAILED)
            request.trace.error_type = error_type(error)
            raise
        finally:
            trace = request.trace
            outcome = outcome or (Outcome.FINISHED if trace.finished else Outcome.CANCELLED)
            trace.outcome, trace.ended_s = outcome, self._clock()
            if self._book is not None:
                self._book.ended(request.model, request.token_ids, trace, outcome)

    def _take(self, trace: Trace, progress: Progress, frame: TokenFrame) -> int:
        if not progress.started:
            trace.first_token_s = self._clock()
        num_tokens = progress.take(frame)
        trace.finished = frame.finished
        trace.output_tokens += num_tokens
        return num_tokens

    async def _attempt(
        self, route: Route, request: GenerateRequest, progress: Progress
    ) -> AsyncGenerator[TokenFrame, None]:
        trace = request.trace
        async with self._prefill(route, request, progress) as ticket:
            trace.prefilled_s = trace.prefilled_s or self._clock()
            arrived = False
            max_tokens = max(0, request.max_tokens - len(progress.generated))
            known = progress.left(request.expected_tokens)
            noted, served = self._leg(request, Role.DECODE), trace.output_tokens
            try:
                leg = DecodeRequest(
                    noted.leg_id,
                    request.model,
                    request.token_ids,
                    ticket,
                    request.sampling,
                    generated=tuple(progress.generated),
                    max_tokens=max_tokens,
                    expected_tokens=self._admission.expected_tokens(request.model, max_tokens, known),
                    avoid=frozenset(progress.avoid),
                    session=request.session,
                    adapter=route.decode_adapter,
                    versions=progress.versions.readers(ticket),
                    untrained_pair=route.untrained_pair,
                    traceparent=noted.traceparent,
                    tracestate=noted.tracestate,
                )
                with noted.timed(self._clock):
                    async with aclosing(route.decode.decode(leg)) as frames:
                        async for frame in frames:
                            if not arrived and ticket is None:
                                self._prefilled_there(request, frame)
                            arrived = True  # the decode replica has read the KV and released its name
                            trace.decode_replica = noted.replica = frame.load.replica
                            if frame.load_ms:
                                trace.load_ms = noted.copy_ms = frame.load_ms
                            progress.versions.began(ticket, frame.load.replica)
                            yield frame
            except HandoffFailedError as error:
                if progress.started and request.bound:
                    raise HandoffFailedError(
                        f"{error.message}; the answer cannot be continued elsewhere: {request.bound}"
                    ) from error
                raise
            finally:
                noted.output_tokens = trace.output_tokens - served
                noted.cut &= not trace.finished  # a stop string ends the request before its decode leg
                if ticket is not None and not arrived:
                    await route.prefill.release(ticket)

    @asynccontextmanager
    async def _prefill(
        self, route: Route, request: GenerateRequest, progress: Progress
    ) -> AsyncGenerator[Ticket | None, None]:
        """The ticket of x_1 … x_{N-1}; None for a prompt of one token, which has nothing to prefill.

        None as well where the decode pool's base is the prefill module (ICaRus, rule 8) and a replica there
        has kept all but a short end of the prompt, generated tokens among it: nothing is prefilled twice.
        A second attempt goes the long way, whatever the first one believed to be there.
        """
        if len(request.token_ids) == 1 or self._continues(route, request):
            yield None
            return
        ids = request.token_ids if route.whole_prompt else request.token_ids[:-1]
        versions = await progress.versions.writers(frozenset(progress.avoid))
        trace, noted = request.trace, self._leg(request, Role.PREFILL)
        leg = PrefillRequest(
            noted.leg_id,
            request.model,
            ids,
            frozenset(progress.avoid),
            request.session,
            route.prefill_adapter,
            versions,
            noted.traceparent,
            noted.tracestate,
            request.reuse_soon,
        )
        if not self._early:
            with noted.timed(self._clock):
                ticket = self._prefilled(leg, trace, noted, await route.prefill.prefill(leg))
            yield ticket
            return
        async with aclosing(route.prefill.prefill_early(leg)) as results:
            with noted.timed(self._clock):
                ticket = self._prefilled(leg, trace, noted, await anext(results))
            rest = asyncio.create_task(self._drain(trace, noted, results))
            try:
                yield ticket
                await rest  # which is over, or was just said: its KV has been read
            finally:
                rest.cancel()
                await asyncio.wait({rest})

    @staticmethod
    def _continues(route: Route, request: GenerateRequest) -> bool:
        if route.local_prefill_tokens is None or request.trace.attempts > 1:
            return False
        held = route.decode.held_tokens(request.token_ids)
        return len(request.token_ids) - held <= route.local_prefill_tokens

    def _prefilled_there(self, request: GenerateRequest, frame: TokenFrame) -> None:
        """The decode replica had or has computed the prompt. What it had, it knows best: the router's index
        takes the end of a block for a block."""
        if frame.cached_tokens is not None:
            request.trace.cached_tokens = min(frame.cached_tokens, len(request.token_ids))
            request.trace.cross_model_tokens = frame.cross_model_tokens
        if self._book is not None:
            self._book.prefilled(request.model, request.trace, frame.load)

    async def _drain(self, trace: Trace, noted: Leg, results: AsyncGenerator[PrefillResult, None]) -> None:
        """The end of an early prefill. If it fails, so does the load of its KV, and that is what counts."""
        with suppress(RequestError), noted.timed(self._clock):
            async for result in results:
                trace.prefilled(noted, result)

    def _prefilled(self, leg: PrefillRequest, trace: Trace, noted: Leg, result: PrefillResult) -> Ticket:
        first = trace.prefill_replica is None
        ticket = trace.prefilled(noted, result)
        if first and self._book is not None:
            self._book.prefilled(leg.model, trace, result.load)
        return ticket

    def _leg(self, request: GenerateRequest, role: Role) -> Leg:
        """Engines refuse an id that they still hold, so a repaired leg gets a new one."""
        leg_id = f"{request.request_id}-{role}-{request.trace.attempts}"
        return request.trace.leg(role, leg_id, self._clock())
