"""What may be asked for beside the prompt: OpenAI's words, typed; `extra_body` for a server's own."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Literal, TypeAlias, TypedDict

from pydantic import BaseModel

from heliostat.client.hints import Hints

Object: TypeAlias = Mapping[str, object]
"""A JSON object."""

Prompt: TypeAlias = str | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]
"""A text or token ids; or several of either, which are answered with a choice each."""


class CommonOptions(TypedDict, total=False):
    """What both kinds of request know. What is left out, the server decides; other names are a TypeError.

    `stream_options`: of streams only; without it usage is asked for, None sends none. `extra_body`: further
    keys of the body, which win. `extra_headers`: of this request. `timeout_s`: instead of the client's.
    """

    temperature: float
    top_p: float
    max_tokens: int
    stop: str | Sequence[str]
    n: int
    seed: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[str, float]
    stream_options: Object | None
    user: str
    hints: Hints
    extra_body: Object
    extra_headers: Mapping[str, str]
    timeout_s: float


class ChatOptions(CommonOptions, total=False):
    """`response_format` is OpenAI's object, or a pydantic model whose schema the answer must follow; then
    `Answer.parse` reads it. `chat_template_kwargs` goes to the chat template (vLLM): thinking on or off."""

    logprobs: bool
    top_logprobs: int
    max_completion_tokens: int
    tools: Sequence[Object]
    tool_choice: Literal["none", "auto", "required"] | Object
    parallel_tool_calls: bool
    response_format: Object | type[BaseModel]
    reasoning_effort: str
    chat_template_kwargs: Object


class CompletionOptions(CommonOptions, total=False):
    """`logprobs`: how many of the likeliest tokens are named in each place. `echo`: the prompt goes first."""

    logprobs: int
    echo: bool
    suffix: str


CHAT_OPTIONS = ChatOptions.__optional_keys__
COMPLETION_OPTIONS = CompletionOptions.__optional_keys__
_HINTS = frozenset(field.name for field in fields(Hints))


def check_names(given: Object, known: Collection[str]) -> None:
    """Raises TypeError for an option that is none: sent on, a typing error would do nothing, in silence."""
    for name in given:
        if name not in known:
            raise TypeError(f"there is no option {name!r}; {_instead(name, known)}")


def _instead(name: str, known: Collection[str]) -> str:
    if name in _HINTS:
        return f"it is a hint: hints=Hints({name}=…)"
    if name == "stream":
        return "stream_chat, stream_complete and stream_ask stream"
    near = "".join(f"did you mean {match}? " for match in get_close_matches(name, known, 1))
    return f"{near}What only some servers know goes into extra_body"
