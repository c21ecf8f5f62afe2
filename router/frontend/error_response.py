"""Errors as OpenAI's error object. Its `type` says what its status says, wherever the error comes from."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from heliostat.errors import RequestError

TYPES: Mapping[int, str] = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    409: "ConflictError",
    413: "RequestTooLargeError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
}
"""By status: the class that the `openai` client raises, where it has one of its own."""


def error_response(message: str, status: int, param: str | None = None) -> JSONResponse:
    """`{"error": {…}}` with that HTTP status."""
    return JSONResponse(error_body(message, status, param), status_code=status)


def error_body(message: str, status: int, param: str | None = None) -> dict[str, dict[str, str | int | None]]:
    """What an error event of a stream holds, too."""
    kind = TYPES.get(status, TYPES[400 if status < 500 else 500])
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def request_error_response(error: Exception) -> JSONResponse:
    """One of our errors; what is no RequestError is the server's fault and becomes a 500."""
    status = error.status if isinstance(error, RequestError) else RequestError.status
    return error_response(str(error), status)
