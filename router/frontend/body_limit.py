"""Refuse a body that is too large while it arrives, before anything parses it."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heliostat.errors import RequestTooLargeError
from router.frontend.error_response import request_error_response

MAX_BODY_BYTES = 8 * 1024 * 1024
"""A prompt of a million tokens is about 4 MB of JSON."""


class BodyLimit:
    """Pure ASGI, so that it costs the token path nothing."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise RequestTooLargeError(self._message())
            return message

        await self._app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await request_error_response(RequestTooLargeError(self._message()))(scope, receive, send)

    def _message(self) -> str:
        return f"the request body is larger than {self._max_bytes} bytes"
