"""Bodies that are too large are refused, declared or not; others pass untouched."""

from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from heliostat.errors import RequestTooLargeError
from router.frontend.body_limit import BodyLimit
from router.frontend.error_response import request_error_response


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def refuse(request: Request, error: Exception) -> Response:
    return request_error_response(error)


def client() -> httpx.AsyncClient:
    app = Starlette(
        routes=[Route("/", count, methods=["POST"])], exception_handlers={RequestTooLargeError: refuse}
    )
    app.add_middleware(BodyLimit, max_bytes=10)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_body_at_the_limit_passes() -> None:
    assert (await client().post("/", content=b"x" * 10)).text == "10"


async def test_a_declared_body_over_the_limit_is_refused() -> None:
    response = await client().post("/", content=b"x" * 11)
    assert response.status_code == 413
    assert response.json()["error"]["message"] == "the request body is larger than 10 bytes"


async def test_an_undeclared_body_over_the_limit_is_refused() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"xxxx"

    assert (await client().post("/", content=pieces())).status_code == 413
