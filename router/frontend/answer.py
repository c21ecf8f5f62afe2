"""What vLLM's layer returns as a response: with who served it and what it saved, and never a late 200."""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from heliostat.errors import HeliostatError
from heliostat.headers import CACHED_TOKENS, CROSS_MODEL_TOKENS, DECODE, PREFILL, SAVED_MS
from router.trace import Trace


async def answer(result: BaseModel | ErrorResponse | AsyncGenerator[str, None], trace: Trace) -> Response:
    """`result` with the headers that the trace gives; an error with its status, also one of a stream."""
    if isinstance(result, ErrorResponse):
        return JSONResponse(result.model_dump(), result.error.code, retry_after(trace.retry_after_s))
    if isinstance(result, BaseModel):
        return JSONResponse(result.model_dump(), headers=_headers(trace))
    # The first chunk is awaited before the status line goes out: replicas are known then, and a
    # request that failed before its first token must not become an HTTP 200.
    first = await anext(result, None)
    if first is None:
        raise HeliostatError("the stream ended before it began")
    if (status := _error_status(first)) is not None:
        await result.aclose()
        body = first.removeprefix("data: ").strip()
        return Response(body, status, retry_after(trace.retry_after_s), media_type="application/json")
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
            yield chunk


def _error_status(chunk: str) -> int | None:
    """The status in an error event of vLLM's stream generators, or None for an ordinary chunk."""
    if not chunk.startswith('data: {"error"'):
        return None
    status: int = ErrorResponse.model_validate_json(chunk.removeprefix("data: ")).error.code
    return status


def _headers(trace: Trace) -> dict[str, str]:
    headers = {PREFILL: trace.prefill_replica, DECODE: trace.decode_replica}
    if trace.decode_replica:
        headers[CACHED_TOKENS] = str(trace.cached_tokens)
        headers[CROSS_MODEL_TOKENS] = str(trace.cross_model_tokens)
        headers[SAVED_MS] = f"{trace.saved_ms:.3f}" if trace.saved_ms else None
    return {header: value for header, value in headers.items() if value}
