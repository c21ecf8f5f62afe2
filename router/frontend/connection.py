"""Work for a client only as long as it is there.

One watcher per request waits for the disconnect from the request's first byte to its last. vLLM's
`with_cancellation` stops watching when a stream begins and may swallow the one disconnect message that
ASGI sends; Starlette relies on `send` to fail, which it never does behind Serve's proxy. Of 200
requests cancelled at random moments, up to 14 then decoded to their end.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

Body = TypeVar("Body", bound=BaseModel)
Chunk = str | bytes | memoryview
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that went away; nobody reads it but logs."""


def while_connected(
    endpoint: Callable[[Body, Request], Awaitable[Response]],
) -> Callable[[Body, Request], Awaitable[Response]]:
    """Cancel the endpoint, or end the stream that it returned, when the client goes away."""

    @functools.wraps(endpoint)
    async def watched(body: Body, raw_request: Request) -> Response:
        gone = asyncio.create_task(_disconnected(raw_request))
        work = asyncio.ensure_future(endpoint(body, raw_request))
        streaming = False
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            response = work.result()
            if isinstance(response, StreamingResponse):
                response.body_iterator = _until(gone, aiter(response.body_iterator))
                streaming = True
            return response
        finally:
            work.cancel()
            if not streaming:
                gone.cancel()

    return watched


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _until(gone: "asyncio.Task[None]", chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """The chunks while the client is there; tokens come every few milliseconds, so each is a look."""
    try:
        async with aclosing(chunks):  # type: ignore[type-var]
            async for chunk in chunks:
                if gone.done():
                    return
                yield chunk
    finally:
        gone.cancel()
