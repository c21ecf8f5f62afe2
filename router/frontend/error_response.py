"""Errors as OpenAI's error object."""

from starlette.responses import JSONResponse

from heliostat.errors import RequestError


def error_response(message: str, kind: str, status: int, param: str | None = None) -> JSONResponse:
    """`{"error": {…}}` with that HTTP status."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": status}}
    return JSONResponse(body, status_code=status)


def request_error_response(error: Exception) -> JSONResponse:
    """One of our errors; what is no RequestError is the server's fault and becomes a 500."""
    kind = error if isinstance(error, RequestError) else RequestError
    return error_response(str(error), kind.kind, kind.status)
