"""The pipeline's pools over Ray Serve handles: calls, cancellation, and Ray's errors as ours."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context
from typing import Any, Protocol

from ray.exceptions import RayActorError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from heliostat.errors import HandoffFailedError, HeliostatError, PoolUnavailableError, PrefillFailedError
from heliostat.wire import DecodeRequest, PrefillRequest, PrefillResult, Ticket, TokenFrame
from router.telemetry import TelemetryBoard


class PoolView(Protocol):
    """What a call has to know of its pool."""

    @property
    def label(self) -> str:
        """`pool prefill.math`."""

    def answers(self) -> bool:
        """Whether any of its replicas answered the last time they were asked."""


LOOK_S = 0.25
"""Between two looks whether a call that no replica has taken yet can still find one."""


def _call(handle: DeploymentHandle, request: PrefillRequest | DecodeRequest) -> Any:
    """A handle call with an identity of its own.

    Inside an HTTP request, Serve gives every handle call that request's internal id, and its request
    router keeps one pending call per id: of two calls at the same time one is never routed (Ray 2.60;
    seen with several prompts in one completion). An empty context makes Serve draw a fresh id.
    """
    return Context().run(handle.remote, request)


@asynccontextmanager
async def _must_be_sent(board: TelemetryBoard, leg_id: str, pool: PoolView) -> AsyncGenerator[None, None]:
    """Raises PoolUnavailableError when the leg waits for a replica and the pool has none.

    Serve would go on waiting until one has been started again, and the client with it. However long a
    replica takes to answer, once it has taken the leg, or while there is one to take it, no limit holds.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None
    try:
        async with asyncio.timeout(None) as limit:

            def look() -> None:
                nonlocal timer
                if board.was_sent(leg_id):
                    return
                if pool.answers():
                    timer = loop.call_later(LOOK_S, look)
                else:
                    limit.reschedule(loop.time())

            timer = loop.call_later(LOOK_S, look)
            try:
                yield
            finally:
                timer.cancel()
    except TimeoutError as error:
        raise PoolUnavailableError(f"{pool.label} has no replica that answers; try again later") from error
    finally:
        board.left(leg_id)


@contextmanager
def _ray_errors(pool: PoolView, lost: type[PrefillFailedError | HandoffFailedError]) -> Iterator[None]:
    """Ray's errors as ours: a lost replica fails the leg, a pool that takes nothing is unavailable."""
    try:
        yield
    except (RayActorError, TaskCancelledError) as error:
        raise lost(f"{pool.label}: the replica was lost") from error
    except (DeploymentUnavailableError, BackPressureError) as error:
        raise PoolUnavailableError(f"{pool.label} takes no requests: {error}") from error


class ServePrefillPool:
    """`router.pipeline.PrefillPool` over a prefill deployment."""

    def __init__(self, pool: PoolView, handle: DeploymentHandle, board: TelemetryBoard) -> None:
        self._pool = pool
        self._handle = handle
        self._early = handle.options(method_name="prefill_early", stream=True)
        self._board = board

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        response = _call(self._handle.prefill, request)
        try:
            with _ray_errors(self._pool, PrefillFailedError):
                async with _must_be_sent(self._board, request.request_id, self._pool):
                    result: PrefillResult = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        self._board.observe(result.load)
        return result

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        results = _call(self._early, request)
        finished = False
        try:
            with _ray_errors(self._pool, PrefillFailedError):
                async with _must_be_sent(self._board, request.request_id, self._pool):
                    result: PrefillResult | None = await anext(results, None)
                while result is not None:
                    self._board.observe(result.load)
                    finished = not result.ticket.streamed
                    yield result
                    result = await anext(results, None)
        finally:
            if not finished:
                results.cancel()

    async def release(self, ticket: Ticket) -> None:
        """Every replica hears it, its owner acts; the lease covers the case that none does."""
        with suppress(RayActorError, DeploymentUnavailableError, HeliostatError):
            await self._handle.broadcast("release", ticket.ticket_id).results_async()


class ServeDecodePool:
    """`router.pipeline.DecodePool` over a decode deployment."""

    def __init__(self, pool: PoolView, handle: DeploymentHandle, board: TelemetryBoard) -> None:
        self._pool = pool
        self._handle = handle.options(method_name="decode", stream=True)
        self._replicas = handle
        self._board = board
        self._aborts: set[asyncio.Task[None]] = set()

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        frames = _call(self._handle, request)
        finished = False
        try:
            with _ray_errors(self._pool, HandoffFailedError):
                async with _must_be_sent(self._board, request.request_id, self._pool):
                    frame: TokenFrame | None = await anext(frames, None)
                while frame is not None:
                    self._board.observe(frame.load)
                    finished = frame.finished
                    yield frame
                    frame = await anext(frames, None)
        finally:
            if not finished:
                frames.cancel()
                abort = asyncio.create_task(self._abort(request.request_id))
                self._aborts.add(abort)
                abort.add_done_callback(self._aborts.discard)

    async def _abort(self, request_id: str) -> None:
        """Say it to the replicas as well: a call cancelled while Serve dispatches it runs on unseen.

        Seen with Ray 2.60: of 200 requests cancelled at random moments, 14 decoded to their end.
        """
        with suppress(RayActorError, DeploymentUnavailableError, HeliostatError):
            await self._replicas.broadcast("abort", request_id).results_async()
