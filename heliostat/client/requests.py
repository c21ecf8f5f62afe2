"""From what an author calls to what is sent: bytes that are the same for the same arguments."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from pydantic import BaseModel

from heliostat.client.header_lines import merged
from heliostat.client.hints import NO_HINTS, Hints
from heliostat.client.messages import Messages, as_messages
from heliostat.client.options import (
    CHAT_OPTIONS,
    COMPLETION_OPTIONS,
    ChatOptions,
    CompletionOptions,
    Object,
    Prompt,
    check_names,
)
from heliostat.client.settings import seconds
from heliostat.errors import InvalidRequestError

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
MODELS_PATH = "/v1/models"
STATUS_PATH = "/status"
LONGEST_NAME = 64
"""Of a schema, in OpenAI's protocol."""

NOT_IN_THE_BODY = frozenset({"hints", "extra_body", "extra_headers", "timeout_s", "stream_options"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole but for what every attempt has of its own. `timeout_s`: None is the client's."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hints: Hints = NO_HINTS
    streamed: bool = False
    timeout_s: float | None = None


def chat_request(model: str, said: Messages, streamed: bool, options: ChatOptions) -> Request:
    """Raises InvalidRequestError for what cannot be written as JSON, TypeError for an unknown option."""
    check_names(cast(Object, options), CHAT_OPTIONS)
    body: dict[str, object] = {"model": model, "messages": as_messages(said)}
    return _post(CHAT_PATH, body, streamed, cast(Object, options))


def completion_request(model: str, prompt: Prompt, streamed: bool, options: CompletionOptions) -> Request:
    """Raises InvalidRequestError for what cannot be written as JSON, TypeError for an unknown option."""
    check_names(cast(Object, options), COMPLETION_OPTIONS)
    body: dict[str, object] = {"model": model, "prompt": prompt if isinstance(prompt, str) else list(prompt)}
    return _post(COMPLETION_PATH, body, streamed, cast(Object, options))


def _post(path: str, body: dict[str, object], streamed: bool, options: Object) -> Request:
    for name, value in options.items():
        if name not in NOT_IN_THE_BODY:
            body[name] = _schema(value) if isinstance(value, type) and issubclass(value, BaseModel) else value
    if streamed:
        body["stream"] = True
        told = options.get("stream_options", {"include_usage": True})
        if told is not None:
            body["stream_options"] = told
    body.update(cast(Object, options.get("extra_body", {})))
    hints = cast(Hints, options.get("hints", NO_HINTS))
    more = cast(Mapping[str, str], options.get("extra_headers", {}))
    timeout_s = cast(float | None, options.get("timeout_s"))
    return Request(
        "POST",
        path,
        _as_json(body),
        merged({"content-type": "application/json"}, hints.headers(), more),
        hints,
        streamed,
        None if timeout_s is None else seconds("timeout_s", timeout_s),
    )


def _schema(shape: type[BaseModel]) -> Object:
    """Without `strict`: OpenAI then refuses schemas with defaults, or without an object at the root. Servers
    that guide the decoding follow the schema in any case."""
    name = re.sub("[^a-zA-Z0-9_-]", "_", shape.__name__)[:LONGEST_NAME]
    told = {"name": name, "schema": shape.model_json_schema()}
    return {"type": "json_schema", "json_schema": told}


def _as_json(body: Object) -> bytes:
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"the request cannot be written as JSON: {error}") from error


def _plain(value: object) -> object:
    """Mappings that are no dict, and models: `json` does not know them."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{value!r} is a {type(value).__name__}")
