"""The HTTP surface: OpenAI's endpoints, `/health`, `/ready`, `/status`, `/heliostat/models` and `/ui`."""

import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from http import HTTPStatus

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeRequest
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.exceptions import GracefulHTTPError

from heliostat.errors import HeliostatError, InvalidRequestError, OverloadedError, UnknownModelError
from heliostat.status import ClusterStatus
from router.cluster import ClusterView
from router.frontend.api_keys import ApiKeyCheck, ApiKeys
from router.frontend.body_limit import BodyLimit
from router.frontend.connection import while_connected
from router.frontend.engine_client import Hints, current_hints, current_trace
from router.frontend.error_response import error_response, request_error_response
from router.frontend.models import ModelDesk, add_model_routes
from router.frontend.observe import Observe
from router.frontend.openai import HANDLER_ARGS, ModelServing
from router.frontend.ui_routes import add_ui_routes
from router.requests import RequestDesk
from router.trace import Trace

SESSION_HEADER = "x-heliostat-session"
"""A name for the conversation; the policy `sticky_session` keeps it on one replica."""

DEADLINE_HEADER = "x-heliostat-deadline"
"""Seconds that the client waits for a place at most; then it gets a 429."""

PREFILL_HEADER = "x-heliostat-prefill"
DECODE_HEADER = "x-heliostat-decode"
"""Which replicas served a request; the prefill header is absent for a prompt of one token."""

WithRouter = Callable[[ClusterStatus], ClusterStatus]
"""Adds to the pools' status what this router knows of itself and of the models it has served."""


class Endpoints:
    """One method per endpoint. Errors leave as OpenAI error objects, before the first byte where possible."""

    def __init__(
        self, serving: Mapping[str, ModelServing], cluster: ClusterView, with_router: WithRouter
    ) -> None:
        self._serving = serving
        self._cluster = cluster
        self._with_router = with_router

    async def chat(self, body: ChatCompletionRequest, raw_request: Request) -> Response:
        if not body.messages:
            raise InvalidRequestError("`messages` is empty; send at least one message")
        trace = _new_trace(raw_request)
        result = await self._model(body.model).chat.create_chat_completion(body, raw_request)
        return await _answer(result, trace)

    async def completion(self, body: CompletionRequest, raw_request: Request) -> Response:
        trace = _new_trace(raw_request)
        result = await self._model(body.model).completion.create_completion(body, raw_request)
        return await _answer(result, trace)

    async def tokenize(self, body: TokenizeRequest, raw_request: Request) -> Response:
        result = await self._model(body.model).tokenization.create_tokenize(body, raw_request)
        return await _answer(result, Trace())

    async def detokenize(self, body: DetokenizeRequest, raw_request: Request) -> Response:
        result = await self._model(body.model).tokenization.create_detokenize(body, raw_request)
        return await _answer(result, Trace())

    async def models(self) -> Response:
        lists = [await serving.models.show_available_models() for serving in tuple(self._serving.values())]
        cards = [card.model_dump() for models in lists for card in models.data]
        return JSONResponse({"object": "list", "data": cards})

    async def health(self) -> Response:
        """Live: this router answers."""
        return JSONResponse({"status": "live"})

    async def ready(self) -> Response:
        """Ready: every pool has a replica that answers."""
        if problem := self._cluster.problem():
            return JSONResponse({"status": "not ready", "problem": problem}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def status(self) -> Response:
        """Pools as they are now; models as this router, one of several perhaps, has served them."""
        status = self._with_router(await self._cluster.status())
        return JSONResponse(status.model_dump(mode="json"))

    def _model(self, name: str | None) -> ModelServing:
        if not name and len(self._serving) == 1:
            return next(iter(self._serving.values()))
        serving = self._serving.get(name or "")
        if serving is not None:
            return serving
        served = ", ".join(self._serving) or "no model"
        if not name:
            raise InvalidRequestError(f"`model` is missing; this cluster serves: {served}")
        raise UnknownModelError(f"The model `{name}` does not exist; this cluster serves: {served}")


def build_app(
    serving: Mapping[str, ModelServing],
    cluster: ClusterView,
    with_router: WithRouter,
    desk: ModelDesk,
    requests: RequestDesk | None = None,
    keys: ApiKeys | None = None,
) -> FastAPI:
    """The ASGI application of one router replica; `serving` changes as models come and go.

    `requests` hears of every request that is over, where they are traced or logged. Without `keys` it
    serves everybody.
    """
    app = FastAPI(title="Heliostat", docs_url=None, redoc_url=None)
    app.state.args = HANDLER_ARGS
    init_exception_handler(app)
    app.add_exception_handler(HeliostatError, _heliostat_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(GracefulHTTPError, _refused)
    app.add_middleware(BodyLimit)
    if keys is not None:
        app.add_middleware(ApiKeyCheck, keys=keys)
    if requests is not None:
        app.add_middleware(Observe, desk=requests)  # around the others: what they refuse is reported, too
    endpoints = Endpoints(serving, cluster, with_router)
    for path, post in (
        ("/v1/chat/completions", endpoints.chat),
        ("/v1/completions", endpoints.completion),
        ("/tokenize", endpoints.tokenize),
        ("/detokenize", endpoints.detokenize),
    ):
        app.post(path, dependencies=[Depends(validate_json_request)], response_model=None)(
            while_connected(post)
        )
    for path, get in (
        ("/v1/models", endpoints.models),
        ("/health", endpoints.health),
        ("/ready", endpoints.ready),
        ("/status", endpoints.status),
    ):
        app.get(path, response_model=None)(get)
    add_model_routes(app, desk)
    add_ui_routes(app)
    return app


def _new_trace(request: Request) -> Trace:
    """Where the request's fate is written down, and what the client said about it in headers."""
    deadline = request.headers.get(DEADLINE_HEADER)
    try:
        deadline_s = float(deadline) if deadline else None
    except ValueError as error:
        raise InvalidRequestError(f"{DEADLINE_HEADER} is {deadline!r}; give it seconds, like 2.5") from error
    current_hints.set(Hints(request.headers.get(SESSION_HEADER, ""), deadline_s))
    trace = Trace(started_s=time.monotonic())
    current_trace.set(trace)
    return trace


async def _answer(result: BaseModel | ErrorResponse | AsyncGenerator[str, None], trace: Trace) -> Response:
    """What vLLM's layer returned as a response that names the replicas."""
    if isinstance(result, ErrorResponse):
        return JSONResponse(result.model_dump(), result.error.code, _retry_after(trace.retry_after_s))
    if isinstance(result, BaseModel):
        return JSONResponse(result.model_dump(), headers=_served_by(trace))
    # The first chunk is awaited before the status line goes out: replicas are known then, and a
    # request that failed before its first token must not become an HTTP 200.
    first = await anext(result, None)
    if first is None:
        raise HeliostatError("the stream ended before it began")
    if (status := _error_status(first)) is not None:
        await result.aclose()
        body = first.removeprefix("data: ").strip()
        return Response(body, status, _retry_after(trace.retry_after_s), media_type="application/json")
    return StreamingResponse(
        _with_first(first, result), media_type="text/event-stream", headers=_served_by(trace)
    )


def _retry_after(seconds: float) -> dict[str, str]:
    """In whole seconds (RFC 9110, 10.2.3), where a limit was the reason."""
    return {"retry-after": str(math.ceil(seconds))} if seconds else {}


async def _with_first(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


def _error_status(chunk: str) -> int | None:
    """The status in an error event of vLLM's stream generators, or None for an ordinary chunk."""
    if not chunk.startswith('data: {"error"'):
        return None
    status: int = ErrorResponse.model_validate_json(chunk.removeprefix("data: ")).error.code
    return status


def _served_by(trace: Trace) -> dict[str, str]:
    replicas = {PREFILL_HEADER: trace.prefill_replica, DECODE_HEADER: trace.decode_replica}
    return {header: replica for header, replica in replicas.items() if replica}


async def _heliostat_error(request: Request, error: Exception) -> Response:
    return request_error_response(error)


async def _refused(request: Request, error: Exception) -> Response:
    """What vLLM's layer raised before the answer began, as it would say it, and when to come back."""
    assert isinstance(error, GracefulHTTPError)
    response = error_response(str(error), HTTPStatus(error.http_status).phrase, error.http_status)
    if isinstance(error.__cause__, OverloadedError):
        response.headers.update(_retry_after(error.__cause__.retry_after_s))
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405, a body that is not UTF-8) as OpenAI error objects."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, HeliostatError):
        return request_error_response(error.__cause__)  # FastAPI wraps what reading the body raised
    kind = HTTPStatus(error.status_code).phrase
    return error_response(error.detail, kind, error.status_code)
