"""Bodies that are not what an endpoint takes: which part, what is wrong with it, and what was found there."""

import re
from collections.abc import Iterable
from itertools import takewhile

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request
from starlette.responses import JSONResponse

from heliostat.errors import InvalidRequestError
from heliostat.findings import show
from router.frontend.error_response import error_response

MOST = 3
"""Findings that are told."""

_FIELD = re.compile(r"[a-z0-9_]+")
_BRANCHES = frozenset(("str", "int", "float", "bool", "list", "dict", "tuple", "nullable"))
"""What pydantic calls branches of a union in an error's place; others it writes with capitals or brackets."""

_LAST = ("missing", "literal_error")
"""What a wrong branch of a union says; its types say almost as little of the right one."""

_TELLING = ("role", "type")
"""What says which branch is meant. Where it is missing, nothing else matters."""

_NOTHING = object()


async def invalid_body(request: Request, error: Exception) -> JSONResponse:
    """pydantic's errors as one message, as short as they allow."""
    assert isinstance(error, RequestValidationError | ValidationError)
    # vLLM's check of the content type has a sentence in place of what pydantic says.
    sentences = [("", each) for each in error.errors() if isinstance(each, str)]
    body = error.body if isinstance(error, RequestValidationError) else None
    findings = sentences or _whole(error.errors()) or _findings(error.errors(), body)
    told = "; ".join(f"`{where}`: {what}" if where else what for where, what in findings[:MOST])
    return error_response(told, InvalidRequestError.status, findings[0][0] or None)


async def malformed_body(request: Request, error: Exception) -> JSONResponse:
    """What vLLM's validators stumble over: they look into values before anybody has looked at their types."""
    message = f"a value in the body is of the wrong type: {error}"
    return error_response(message, InvalidRequestError.status)


def _whole(errors: Iterable[ErrorDetails]) -> list[tuple[str, str]]:
    """What is wrong with a body that is no JSON object at all."""
    for details in errors:
        if details["type"] == "json_invalid":
            place = details["loc"][-1]  # which FastAPI counts in characters
            return [("", f"the body is not JSON: {details['ctx']['error']}, at character {place}")]
        if details["loc"] == ("body",) and details["type"] == "missing":
            return [("", "the body is empty; send a JSON object")]
        if details["loc"] == ("body",) and details["type"] == "model_attributes_type":
            return [("", f"the body is not a JSON object; found {show(details['input'])}")]
    return []


def _findings(errors: Iterable[ErrorDetails], body: object) -> list[tuple[str, str]]:
    """Places with what is wrong there. A value that fits no branch of a union fails all: one is told."""
    best: dict[str, ErrorDetails] = {}
    for details in sorted(_meant(list(errors)), key=_rank):
        best.setdefault(_value(details), details)
    return [(".".join(_place(details, body)), _what(details)) for details in best.values()]


def _meant(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without those of branches whose own `type` says that another one is meant."""
    others = [
        details["loc"][:-1]
        for details in errors
        if details["type"] == "literal_error" and details["loc"][-1] in _TELLING
    ]
    meant = [each for each in errors if not any(each["loc"][: len(other)] == other for other in others)]
    return meant or errors


def _place(details: ErrorDetails, body: object) -> list[str]:
    """vLLM looks at tool calls after all else, and hands on where they are wrong, but not whose they are."""
    fields = _fields(details)
    if not fields or not fields[0].isdigit() or not isinstance(body, dict):
        return fields
    path = fields[:-1] if details["type"] == "missing" else fields
    for number, message in enumerate(body["messages"]):
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        if calls and _at(calls, path) == details["input"]:
            return ["messages", str(number), "tool_calls", *fields]
    return fields


def _at(value: object, path: Iterable[str]) -> object:
    for step in path:
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value.get(step, _NOTHING)
        else:
            return _NOTHING
    return value


def _rank(details: ErrorDetails) -> tuple[int, int]:
    """The deeper an error lies, the more of its branch was right."""
    kind = details["type"]
    if kind == "missing" and details["loc"][-1] in _TELLING:
        return -len(_fields(details)), 0
    last = 3 - _LAST.index(kind) if kind in _LAST else kind.endswith("_type")
    return -len(_fields(details)), int(last)


def _what(details: ErrorDetails) -> str:
    what = details["msg"].removeprefix("Value error, ")
    return what if details["type"] == "missing" else f"{what}; found {show(details['input'])}"


def _value(details: ErrorDetails) -> str:
    """Where the first union begins on the way to the error, or the error itself."""
    parts = [str(part) for part in details["loc"]]
    return ".".join(takewhile(_is_field, parts))


def _fields(details: ErrorDetails) -> list[str]:
    parts = [str(part) for part in details["loc"] if _is_field(str(part))]
    return parts[1:] if parts[:1] == ["body"] else parts


def _is_field(part: str) -> bool:
    return part not in _BRANCHES and _FIELD.fullmatch(part) is not None
