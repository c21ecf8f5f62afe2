"""What vLLM's layer returns as a response: with who served it and what it saved, and never a late 200."""

import json
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from heliostat.errors import HeliostatError
from heliostat.headers import CACHED_TOKENS, CROSS_MODEL_TOKENS, DECODE, PREFILL, SAVED_MS
from router.frontend.error_response import error_body, error_response
from router.trace import Trace

_DATA, _ERROR = "data: ", 'data: {"error"'
"""How vLLM's stream generators write an event, and one that is an error."""


async def answer(result: BaseModel | ErrorResponse | AsyncGenerator[str, None], trace: Trace) -> Response:
    """`result` with the headers that the trace gives; an error with its status, also one of a stream."""
    if isinstance(result, ErrorResponse):
        return _refusal(result, trace)
    if isinstance(result, BaseModel):
        return JSONResponse(result.model_dump(), headers=_headers(trace))
    # The first chunk is awaited before the status line goes out: replicas are known then, and a
    # request that failed before its first token must not become an HTTP 200.
    first = await anext(result, None)
    if first is None:
        raise HeliostatError("the stream ended before it began")
    if first.startswith(_ERROR):
        await result.aclose()
        return _refusal(_error(first), trace)
    return StreamingResponse(
        _with_first(first, result), media_type="text/event-stream", headers=_headers(trace)
    )


def retry_after(seconds: float) -> dict[str, str]:
    """In whole seconds (RFC 9110, 10.2.3), where a limit was the reason."""
    return {"retry-after": str(math.ceil(seconds))} if seconds else {}


async def _with_first(first: str, rest: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield _event(_error(chunk)) if chunk.startswith(_ERROR) else chunk


def _error(chunk: str) -> ErrorResponse:
    return ErrorResponse.model_validate_json(chunk.removeprefix(_DATA))


def _refusal(found: ErrorResponse, trace: Trace) -> Response:
    """vLLM's error, with our `type` of its status."""
    error = found.error
    response = error_response(error.message, error.code, error.param)
    response.headers.update(retry_after(trace.retry_after_s))
    return response


def _event(found: ErrorResponse) -> str:
    error = found.error
    return f"{_DATA}{json.dumps(error_body(error.message, error.code, error.param))}\n\n"


def _headers(trace: Trace) -> dict[str, str]:
    headers = {PREFILL: trace.prefill_replica, DECODE: trace.decode_replica}
    if trace.decode_replica:
        headers[CACHED_TOKENS] = str(trace.cached_tokens)
        headers[CROSS_MODEL_TOKENS] = str(trace.cross_model_tokens)
        headers[SAVED_MS] = f"{trace.saved_ms:.3f}" if trace.saved_ms else None
    return {header: value for header, value in headers.items() if value}
