"""What becomes of a request's parameters: vLLM's layer acts on most of them, some mean nothing here, and some
are refused, because an answer that leaves them out would not be what was asked for.

docs/openai.md has the whole list. vLLM takes any field that it does not know, and says nothing.
"""

from collections.abc import Iterable, Mapping
from functools import cache

from pydantic import BaseModel, ValidationError
from vllm.entrypoints.generate.base.protocol import ResponseFormat
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest

from heliostat.errors import InvalidRequestError
from heliostat.findings import show
from router.frontend.inner_keys import check_inner_keys, unknown

IGNORED = frozenset(
    (
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        # vLLM's. A header names requests, each token is a chunk; the others are of another endpoint.
        "mm_payload",
        "request_id",
        "return_mm_kwargs",
        "stream_interval",
    )
)
"""They change no answer. Nothing is stored."""

_GUIDED = "use `structured_outputs` or `response_format`"
_TEXT = "prompts and answers are text"

REFUSED: Mapping[str, str] = {
    "audio": _TEXT,
    "function_call": "use `tool_choice`",
    "functions": "use `tools`",
    "verbosity": "ask for it in the prompt",
    "web_search_options": "nothing is searched",
    # vLLM's, of old.
    "guided_choice": _GUIDED,
    "guided_decoding_backend": _GUIDED,
    "guided_grammar": _GUIDED,
    "guided_json": _GUIDED,
    "guided_regex": _GUIDED,
    "guided_whitespace_pattern": _GUIDED,
    # vLLM's.
    "cache_salt": "prefix caches are shared by all clients of a cluster",
    "chat_template": "the models' own template is used; `chat_template_kwargs` reach it",
    "ec_transfer_params": "it belongs to the server",
    "include_reasoning": "thoughts are a part of the text; ask the template for none by `reasoning_effort`",
    "kv_transfer_params": "it belongs to the server",
    "length_penalty": "it is beam search's",
    "media_io_kwargs": _TEXT,
    "mm_processor_kwargs": _TEXT,
    "prompt_embeds": _TEXT,
    "return_token_offsets": "answers hold no offsets",
    "routed_experts_prompt_start": "answers do not say which experts were asked",
    "thinking_token_budget": "use `max_tokens`",
    "use_beam_search": "each of its steps would be prefilled by another module than decodes",
    "vllm_xargs": "no plugin of the engines gets them; a session has `session_id`",
    "watermarking": "answers carry no watermark",
}
"""By the parameter's name, with what to do or why."""

TEXT_PARTS = frozenset(("text", "input_text", "output_text", "refusal", "thinking", "tool_reference"))


def check_chat(body: ChatCompletionRequest, raw: Mapping[str, object]) -> None:
    """Refuse what would be left out of the answer. `raw` is what `body` was made from.

    Raises InvalidRequestError.
    """
    if not body.messages:
        raise InvalidRequestError("`messages` is empty; send at least one message")
    _check(body, raw)
    if body.echo:
        raise _unsupported("echo", "a chat's prompt is not text of the client's")
    if (modalities := _extra(body).get("modalities")) not in (None, ["text"]):
        raise InvalidRequestError(f'`modalities` is {show(modalities)}; {_TEXT}, so it can be ["text"]')
    if body.structured_outputs is not None and body.tool_choice not in (None, "none", "auto"):
        raise InvalidRequestError(
            "`structured_outputs` and a `tool_choice` that forces a call exclude each other: the call has a "
            "form of its own; leave out one of them"
        )
    if "chat_template" in (body.chat_template_kwargs or ()):
        raise _unsupported("chat_template", REFUSED["chat_template"])
    for message in body.messages:
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            message["content"] = _parts(content)


def check_completion(body: CompletionRequest, raw: Mapping[str, object]) -> None:
    """Refuse what would be left out of the answer. `raw` is what `body` was made from.

    Raises InvalidRequestError.
    """
    _check(body, raw)
    if (best_of := _extra(body).get("best_of")) not in (None, body.n):
        raise InvalidRequestError(
            f"`best_of` is {show(best_of)} and `n` is {body.n}: all answers that are made are sent, so they "
            "must be equal; leave out `best_of`"
        )


OWN = {"best_of": CompletionRequest, "modalities": ChatCompletionRequest}
"""OpenAI's, unknown to vLLM, looked at above."""


def _check(body: ChatCompletionRequest | CompletionRequest, raw: Mapping[str, object]) -> None:
    extra = _extra(body)
    kind: type[BaseModel] = type(body)
    for name in body.model_fields_set & REFUSED.keys():
        # One that vLLM does not know may mean something by being there at all, and be empty.
        if extra[name] is not None if name in extra else _asks(kind, name, getattr(body, name)):
            raise _unsupported(name, REFUSED[name])
    known = _known(kind)
    for name in extra:
        if name not in known:
            raise unknown(name, known - REFUSED.keys())
    check_inner_keys(body, raw)
    for token, bias in (body.logit_bias or {}).items():
        if not -100 <= bias <= 100:  # NaN, too, which vLLM takes for -100
            raise InvalidRequestError(f"`logit_bias` of token {token} is {bias:g}; it can be -100 to 100")
    asked = body.response_format
    if isinstance(asked, ResponseFormat) and asked.json_schema is not None and asked.type != "json_schema":
        raise InvalidRequestError(
            f'`response_format` has a `json_schema` and is of type "{asked.type}", which ignores it; '
            'say `"type": "json_schema"`'
        )


def _asks(kind: type[BaseModel], name: str, value: object) -> bool:
    """Whether it says anything else than nothing. Clients write defaults out, and zero may be a value."""
    default = kind.model_fields[name].default
    return value is not None and value != default and (bool(value) or default is not None)


@cache
def _known(kind: type[BaseModel]) -> frozenset[str]:
    own = (name for name, takes in OWN.items() if issubclass(kind, takes))
    return frozenset((*kind.model_fields, *IGNORED, *REFUSED, *own))


def _parts(content: Iterable[object]) -> list[object]:
    """A message's parts, which pydantic hands on unlooked at, to be taken once."""
    try:
        parts = list(content)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]["input"]
        raise InvalidRequestError(f"a message has a part that is none of OpenAI's: {show(wrong)}") from error
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind not in TEXT_PARTS:
            raise InvalidRequestError(f"a message has a part of type {show(kind)}; {_TEXT}")
    return parts


def _extra(body: BaseModel) -> Mapping[str, object]:
    return body.model_extra or {}


def _unsupported(name: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"`{name}` is not supported: {remedy}")
