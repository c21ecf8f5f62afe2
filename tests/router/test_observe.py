"""The middleware: where a request begins and ends, whatever its endpoint does."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from router.frontend.observe import Observe
from router.requests import RequestDesk, current_request
from router.tracing.context import TraceContext
from router.tracing.spans import HttpRequest, Span


class Sink:
    """Traces everything, under one id."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def begin(self, parent: TraceContext | None, name: str) -> TraceContext:
        return parent.child() if parent else TraceContext(7, 8, True)

    def emit(self, spans: object) -> None:
        assert hasattr(spans, "__iter__")
        self.spans += spans


class Log:
    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []

    def write(self, request: HttpRequest) -> None:
        self.requests.append(request)


async def answer(request: Request) -> Response:
    opened = current_request.get()
    assert opened is not None
    return PlainTextResponse(opened.request.request_id)


async def stream(request: Request) -> Response:
    async def chunks() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    return StreamingResponse(chunks(), 202)


async def broken(request: Request) -> Response:
    raise RuntimeError("broken")


async def health(request: Request) -> Response:
    assert current_request.get() is None
    return PlainTextResponse("fine")


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def sink() -> Sink:
    return Sink()


def client(log: Log, sink: Sink, endpoint: object) -> httpx.AsyncClient:
    routes = [Route("/v1/completions", endpoint, methods=["POST"]), Route("/health", health)]
    app = Starlette(routes=routes)
    app.add_middleware(Observe, desk=RequestDesk(sink, log, lambda leg_id: None))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_the_answer_names_its_trace_and_the_endpoint_sees_the_request(log: Log, sink: Sink) -> None:
    headers = {"X-Request-ID": "mine", "traceparent": f"00-{5:032x}-{6:016x}-01"}
    response = await client(log, sink, answer).post("/v1/completions", headers=headers)
    assert response.text == "mine"
    assert response.headers["traceresponse"].startswith(f"00-{5:032x}-")
    (request,) = log.requests
    assert (request.path, request.request_id, request.status) == ("/v1/completions", "mine", 200)
    assert request.ended_s >= request.started_s > 0
    assert [span.name for span in sink.spans] == ["POST /v1/completions"]


async def test_a_stream_ends_with_its_last_chunk(log: Log, sink: Sink) -> None:
    async with client(log, sink, stream).stream("POST", "/v1/completions") as response:
        assert [chunk async for chunk in response.aiter_text()]
    assert [request.status for request in log.requests] == [202]


async def test_an_endpoint_that_breaks_is_reported_as_a_500(log: Log, sink: Sink) -> None:
    response = await client(log, sink, broken).post("/v1/completions")
    assert response.status_code == 500
    (request,) = log.requests
    assert request.status == 500
    assert sink.spans[0].failure == "500"


async def test_other_paths_are_left_alone(log: Log, sink: Sink) -> None:
    response = await client(log, sink, answer).get("/health")
    assert "traceresponse" not in response.headers
    assert log.requests == []
