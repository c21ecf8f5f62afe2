"""Where a request begins and ends for traces and logs: around the whole application."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.requests import RequestDesk, current_request
from router.tracing.spans import OPERATIONS

TRACERESPONSE = "traceresponse"
"""The answer's trace, in the form of `traceparent` (W3C Trace Context, Level 2 draft)."""


class Observe:
    """Pure ASGI; installed only where requests are traced or logged."""

    def __init__(self, app: ASGIApp, desk: RequestDesk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in OPERATIONS:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        opened = self._desk.begin(scope["path"], headers)
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if context := opened.request.context:
                    MutableHeaders(scope=message)[TRACERESPONSE] = context.traceparent
            await send(message)

        current_request.set(opened)
        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = status or 500  # Starlette's last resort answers outside of all middleware
            raise
        finally:
            self._desk.end(opened, status)
