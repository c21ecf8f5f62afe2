"""The HTTP surface: OpenAI's endpoints, `/health`, `/ready`, `/status`, `/heliostat/models` and `/ui`."""

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.entrypoints.serve.tokenize.protocol import DetokenizeRequest, TokenizeRequest
from vllm.entrypoints.serve.utils.api_utils import validate_json_request
from vllm.exceptions import GracefulHTTPError

from heliostat.errors import HeliostatError, InvalidRequestError, OverloadedError, UnknownModelError
from heliostat.status import ClusterStatus
from router.cluster import ClusterView
from router.frontend.answer import answer, retry_after
from router.frontend.api_keys import ApiKeyCheck, ApiKeys
from router.frontend.body_limit import BodyLimit
from router.frontend.connection import while_connected
from router.frontend.engine_client import current_hints, current_trace
from router.frontend.error_response import error_response, request_error_response
from router.frontend.hints import read_hints
from router.frontend.models import ModelDesk, add_model_routes
from router.frontend.observe import Observe
from router.frontend.openai import HANDLER_ARGS, ModelServing
from router.frontend.parameters import check_chat, check_completion
from router.frontend.ui_routes import add_ui_routes
from router.frontend.validation import invalid_body, malformed_body
from router.requests import RequestDesk
from router.trace import Trace

SERVED = "/v1/chat/completions, /v1/completions and /v1/models"

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
        serving = self._model(body.model)
        check_chat(body, await raw_request.json())
        trace = _new_trace(raw_request, body)
        result = await serving.chat.create_chat_completion(body, raw_request)
        return await answer(result, trace)

    async def completion(self, body: CompletionRequest, raw_request: Request) -> Response:
        serving = self._model(body.model)
        check_completion(body, await raw_request.json())
        trace = _new_trace(raw_request, body)
        result = await serving.completion.create_completion(body, raw_request)
        return await answer(result, trace)

    async def tokenize(self, body: TokenizeRequest, raw_request: Request) -> Response:
        result = await self._model(body.model).tokenization.create_tokenize(body, raw_request)
        return await answer(result, Trace())

    async def detokenize(self, body: DetokenizeRequest, raw_request: Request) -> Response:
        result = await self._model(body.model).tokenization.create_detokenize(body, raw_request)
        return await answer(result, Trace())

    async def models(self) -> Response:
        cards = [await _card(serving) for serving in tuple(self._serving.values())]
        return JSONResponse({"object": "list", "data": cards})

    async def model(self, name: str) -> Response:
        return JSONResponse(await _card(self._model(name)))

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
    app.add_exception_handler(RequestValidationError, invalid_body)
    app.add_exception_handler(ValidationError, invalid_body)
    app.add_exception_handler(TypeError, malformed_body)
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
        ("/v1/models/{name:path}", endpoints.model),
        ("/health", endpoints.health),
        ("/ready", endpoints.ready),
        ("/status", endpoints.status),
    ):
        app.get(path, response_model=None)(get)
    add_model_routes(app, desk)
    add_ui_routes(app)
    return app


def _new_trace(request: Request, body: ChatCompletionRequest | CompletionRequest) -> Trace:
    """Where the request's fate is written down; what the client said about it in headers is set beside it."""
    hints = read_hints(request.headers)
    if hints.priority is not None and "priority" not in body.model_fields_set:
        body.priority = hints.priority
    current_hints.set(hints)
    trace = Trace(started_s=time.monotonic())
    current_trace.set(trace)
    return trace


async def _card(serving: ModelServing) -> dict[str, object]:
    """What /v1/models says of a model."""
    cards = (await serving.models.show_available_models()).data
    card: dict[str, object] = cards[0].model_dump()
    return card


async def _heliostat_error(request: Request, error: Exception) -> Response:
    return request_error_response(error)


async def _refused(request: Request, error: Exception) -> Response:
    """What vLLM's layer raised before the answer began, as it would say it, and when to come back."""
    assert isinstance(error, GracefulHTTPError)
    response = error_response(str(error), error.http_status)
    if isinstance(error.__cause__, OverloadedError):
        response.headers.update(retry_after(error.__cause__.retry_after_s))
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405, a body that is not UTF-8) as OpenAI error objects."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, HeliostatError):
        return request_error_response(error.__cause__)  # FastAPI wraps what reading the body raised
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and request.url.path.startswith("/v1/"):
        detail = f"{detail}: {request.url.path} is not served; of OpenAI's API there is {SERVED}"
    return error_response(detail, error.status_code)
