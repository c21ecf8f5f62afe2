"""From what came over HTTP to an error of `heliostat.errors`."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus

from heliostat.errors import (
    HeliostatError,
    InvalidRequestError,
    OtherStatusError,
    OverloadedError,
    PoolUnavailableError,
    RequestError,
    RequestTooLargeError,
    UnauthorizedError,
    UnexpectedAnswerError,
    UnknownModelError,
)

_OF_STATUS: dict[int, type[RequestError]] = {
    400: InvalidRequestError,
    401: UnauthorizedError,
    404: UnknownModelError,
    413: RequestTooLargeError,
    422: InvalidRequestError,
    500: RequestError,
}
_NO_PAGE = (None, "Not Found")
"""What any web server says with a 404; that a model is unknown is said in more words."""

_SHOWN = 200


def error_of(status: int, body: bytes | str, retry_after_s: float | None, where: str) -> HeliostatError:
    """The error that a status and a body stand for. `where` is the address that was asked."""
    error = _error_of(status, body, retry_after_s, where)
    if isinstance(error, RequestError):
        details = _details(body)
        error.status = status
        error.kind = _text(details.get("type")) or error.kind
        error.code, error.param = _text(details.get("code")), _text(details.get("param"))
    return error


def late_error(body: bytes | str, where: str) -> HeliostatError:
    """An error object after a 200, as if the server had said it in time: its `code` is an HTTP status, or is
    none."""
    details = _details(body)
    numbers = (str(details.get(key)) for key in ("code", "status", "status_code"))
    status = next((int(number) for number in numbers if re.fullmatch("[45][0-9][0-9]", number)), 500)
    return error_of(status, body, None, where)


def _error_of(status: int, body: bytes | str, retry_after_s: float | None, where: str) -> HeliostatError:
    told = told_in(body)
    message = told or f"{where} answered {_named(status)}{_quoted(body)}"
    if status == 404 and told in _NO_PAGE:
        return UnexpectedAnswerError(f"{where} answered 404, no such page; is base_url the server's root?")
    if status < 400:
        return UnexpectedAnswerError(message)
    if status == 429:
        return OverloadedError(message, 1.0 if retry_after_s is None else retry_after_s)
    if status == 503:
        return PoolUnavailableError(message, retry_after_s or 0.0)
    if kind := _OF_STATUS.get(status):
        return kind(message)
    return OtherStatusError(message, status, retry_after_s or 0.0)


def told_in(body: bytes | str) -> str | None:
    """The message of an error object: OpenAI's `{"error": {"message": …}}`, or one of its usual variants."""
    found = _parsed(body)
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    if isinstance(found, str):
        return found
    return json.dumps(found, ensure_ascii=False) if isinstance(found, list) and found else None


def _details(body: bytes | str) -> Mapping[str, object]:
    """The error object itself, or a body that is one: `{"object": "error", "code": 400, …}`."""
    found = _parsed(body)
    whole: Mapping[str, object] = found if isinstance(found, dict) else {}
    error = whole.get("error")
    return {**whole, **error} if isinstance(error, dict) else whole


def _parsed(body: bytes | str) -> object:
    try:
        found: object = json.loads(body)
    except ValueError:
        return None
    return found


def _text(value: object) -> str:
    """Numbers are left out: they repeat the status."""
    return value if isinstance(value, str) and not value.isdigit() else ""


def not_openai(what: str, body: bytes | str, where: str) -> UnexpectedAnswerError:
    """A success that is none: a page of a proxy, or another protocol."""
    return UnexpectedAnswerError(f"{where} answered {what}{_quoted(body)}")


def _named(status: int) -> str:
    known = {each.value: each.phrase for each in HTTPStatus}
    return f"{status} {known.get(status, '')}".rstrip()


def _quoted(body: bytes | str) -> str:
    begin = body[: 4 * _SHOWN]
    text = begin if isinstance(begin, str) else begin.decode("utf-8", "replace")
    text = re.sub(r"\s+", " ", text).strip()
    if not text:
        return " without a body"
    return f": {text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}"
