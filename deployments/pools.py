"""The pipeline's pools over Ray Serve handles: calls, cancellation, and Ray's errors as ours."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import Context
from dataclasses import replace
from typing import Any, Protocol

from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from heliostat.errors import (
    HandoffFailedError,
    HeliostatError,
    LegFailedError,
    PoolUnavailableError,
    PrefillFailedError,
    RequestError,
)
from heliostat.wire import DecodeRequest, DecodeResult, PrefillRequest, PrefillResult, Ticket, TokenFrame
from router.channel.inbox import Inbox, Stream
from router.telemetry import TelemetryBoard


class PoolView(Protocol):
    """What a call has to know of its pool."""

    @property
    def label(self) -> str:
        """`pool prefill.math`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its replicas, the same tuple as long as they are the same."""

    @property
    def cold_start_s(self) -> float:
        """How long a call waits for its first replica; 0 for a pool that always has one."""

    def answers(self) -> bool:
        """Whether any of its replicas answered the last time they were asked."""

    def runs(self, versions: frozenset[str]) -> bool:
        """Whether any of those is of one of these versions."""

    def leg_failed(self) -> None:
        """A leg failed in this pool; for the metrics."""


LOOK_S = 0.25
"""Between two looks whether a call that no replica has taken yet can still find one."""


def _call(handle: DeploymentHandle, request: PrefillRequest | DecodeRequest) -> Any:
    """A handle call with an identity of its own.

    Inside an HTTP request, Serve gives every handle call that request's internal id, and its request
    router keeps one pending call per id: of two calls at the same time one is never routed (Ray 2.60;
    seen with several prompts in one completion). An empty context makes Serve draw a fresh id.
    """
    return Context().run(handle.remote, request)


def _nothing() -> None:
    pass


@asynccontextmanager
async def _must_be_sent(
    board: TelemetryBoard,
    leg_id: str,
    pool: PoolView,
    versions: frozenset[str] | None = None,
    on_cold: Callable[[], None] = _nothing,
) -> AsyncGenerator[None, None]:
    """Raises PoolUnavailableError when the leg waits for a replica and the pool has none, and LegFailedError
    when it has none of the leg's versions any more.

    Serve would go on waiting until one has been started again, and the client with it. However long a
    replica takes to answer, once it has taken the leg, or while there is one to take it, no limit holds.
    Of a pool that may be at 0, the first replica is waited for (`cold_start_s`): the call itself makes Serve
    start it. `on_cold` is called again and again meanwhile.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None
    waited_since = loop.time()
    try:
        async with asyncio.timeout(None) as limit:

            def look() -> None:
                nonlocal timer
                if board.was_sent(leg_id):
                    return
                answers = pool.answers()
                if answers and (versions is None or pool.runs(versions)):
                    timer = loop.call_later(LOOK_S, look)
                elif not answers and loop.time() - waited_since < pool.cold_start_s:
                    on_cold()
                    timer = loop.call_later(LOOK_S, look)
                else:
                    limit.reschedule(loop.time())

            timer = loop.call_later(LOOK_S, look)
            try:
                yield
            finally:
                timer.cancel()
    except TimeoutError as error:
        if pool.answers():
            raise LegFailedError(f"{pool.label} has no replica of the wanted version any more") from error
        if limit_s := pool.cold_start_s:
            message = f"{pool.label} had no replica, and none started in {limit_s:g} s; try again later"
            raise PoolUnavailableError(message, limit_s) from error
        raise PoolUnavailableError(f"{pool.label} has no replica that answers; try again later") from error
    finally:
        board.left(leg_id)


@contextmanager
def _ray_errors(
    board: TelemetryBoard, leg_id: str, pool: PoolView, lost: type[PrefillFailedError | HandoffFailedError]
) -> Iterator[None]:
    """Ray's errors as ours: a lost replica fails the leg, a pool that takes nothing is unavailable."""
    try:
        yield
    except (RayActorError, TaskCancelledError) as error:
        replica = board.replica_of(leg_id)
        raise lost(f"{replica or pool.label}: the replica was lost", replica, True) from error
    except (DeploymentUnavailableError, BackPressureError) as error:
        raise PoolUnavailableError(f"{pool.label} takes no requests: {error}") from error


class ServePrefillPool:
    """`router.pipeline.PrefillPool` over a prefill deployment."""

    def __init__(
        self, pool: PoolView, handle: DeploymentHandle, board: TelemetryBoard, first_token_s: float
    ) -> None:
        self._pool = pool
        self._handle = handle
        self._early = handle.options(method_name="prefill_early", stream=True)
        self._board = board
        self._first_token_s = first_token_s

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        response = _call(self._handle.prefill, request)
        try:
            async with self._leg(request.request_id, request.versions):
                result: PrefillResult = await response
        except BaseException:
            response.cancel()
            raise
        self._board.observe(result.load)
        return result

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        results = _call(self._early, request)
        finished = False
        try:
            async with self._leg(request.request_id, request.versions):
                result: PrefillResult | None = await anext(results, None)
            while result is not None:
                self._board.observe(result.load)
                finished = not result.ticket.streamed
                yield result
                async with self._leg(request.request_id, taken=True):
                    result = await anext(results, None)
        finally:
            if not finished:
                results.cancel()

    @asynccontextmanager
    async def _leg(
        self, leg_id: str, versions: frozenset[str] | None = None, *, taken: bool = False
    ) -> AsyncGenerator[None, None]:
        """One wait for an answer. Raises PrefillFailedError when the replica is lost or says nothing.

        The board hears how it went: a replica that fails again and again is rested.
        """
        replica = ""
        try:
            with _ray_errors(self._board, leg_id, self._pool, PrefillFailedError):
                async with AsyncExitStack() as stack:
                    limit = await stack.enter_async_context(asyncio.timeout(self._first_token_s))

                    def begins_later() -> None:
                        limit.reschedule(asyncio.get_running_loop().time() + self._first_token_s)

                    if not taken:
                        sent = _must_be_sent(self._board, leg_id, self._pool, versions, begins_later)
                        await stack.enter_async_context(sent)
                    try:
                        yield
                    finally:
                        replica = self._board.replica_of(leg_id)
        except TimeoutError as error:
            message = f"{replica or self._pool.label}: no prefill in {self._first_token_s:g} s"
            self._board.failed(replica)
            self._pool.leg_failed()
            raise PrefillFailedError(message, replica) from error
        except PrefillFailedError as error:
            self._board.failed(error.replica or replica, lost=error.lost)
            self._pool.leg_failed()
            raise
        self._board.succeeded(replica)

    async def release(self, ticket: Ticket) -> None:
        """Every replica hears it, its owner acts; the lease covers the case that none does."""
        with suppress(RayActorError, DeploymentUnavailableError, HeliostatError):
            await self._handle.broadcast("release", ticket.ticket_id).results_async()


class ServeDecodePool:
    """`router.pipeline.DecodePool` over a decode deployment.

    The handle call places the leg, counts it and can cancel it; its tokens come through the inbox.
    """

    def __init__(self, pool: PoolView, handle: DeploymentHandle, board: TelemetryBoard, inbox: Inbox) -> None:
        self._pool = pool
        self._handle = handle
        self._board = board
        self._inbox = inbox
        self._tasks: set[asyncio.Task[None]] = set()

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        names = self._pool.names
        hashes = self._board.hashes(names, token_ids)
        if not hashes:
            return 0
        return int(self._board.candidates(names, hashes, len(token_ids)).cached_tokens.max())

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        stream = self._inbox.open()
        call = self._spawn(self._run(request, stream))
        finished = False
        try:
            async with _must_be_sent(
                self._board, request.request_id, self._pool, request.versions, stream.begins_later
            ):
                frame = await stream.next()
            if frame is not None:
                self._board.succeeded(stream.replica)
            while frame is not None:
                finished = frame.finished
                yield frame
                if finished:
                    return
                frame = await stream.next()
        except HandoffFailedError as error:
            self._pool.leg_failed()
            if error.replica:
                self._board.failed(error.replica, lost=error.lost)
            raise
        finally:
            self._inbox.forget(stream)
            if not finished:
                call.cancel()
                self._spawn(self._abort(request.request_id))

    async def _run(self, request: DecodeRequest, stream: Stream) -> None:
        """The handle call beside the stream; open until the replica is done with the leg."""
        reply_to = f"{self._inbox.address}#{stream.number}"
        response = _call(self._handle.decode, replace(request, reply_to=reply_to))
        try:
            with _ray_errors(self._board, request.request_id, self._pool, HandoffFailedError):
                result: DecodeResult = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except RequestError as error:
            stream.fail(error)
        else:
            self._board.observe(result.load)
            stream.ended(result.num_tokens)

    async def _abort(self, request_id: str) -> None:
        """Say it to the replicas as well: a call cancelled while Serve dispatches it runs on unseen.

        Seen with Ray 2.60: of 200 requests cancelled at random moments, 14 decoded to their end.
        """
        with suppress(RayActorError, DeploymentUnavailableError, HeliostatError):
            await self._handle.broadcast("abort", request_id).results_async()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
