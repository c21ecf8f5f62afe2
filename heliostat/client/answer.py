"""What a server answers, the same for chats and for plain completions, streamed or not."""

from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from heliostat.client.messages import Message, ToolCall
from heliostat.client.usage import Usage
from heliostat.errors import UnexpectedAnswerError

Shape = TypeVar("Shape", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class TokenLogprob(_Frozen):
    """One output token with its log probability (None: the server gave none), and the likeliest ones in its
    place, by their text."""

    token: str
    logprob: float | None = None
    top: dict[str, float] = {}


class Choice(_Frozen):
    """One of a request's n answers.

    `reasoning`: what the model thought, where the server tells it apart. `refusal`: why it will not answer,
    which OpenAI tells apart from the text.
    """

    index: int = 0
    text: str = ""
    finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    token_ids: tuple[int, ...] = ()
    """Only where the server was asked for them (vLLM's `return_token_ids`)."""


class ServedBy(_Frozen):
    """The replicas that did the work, "" where the server does not say."""

    prefill: str = ""
    decode: str = ""


class Answer(_Frozen):
    """A whole answer. `text` and the other short cuts are those of its first choice.

    `raw` is the body as it came; of a stream, its last event.
    """

    id: str = ""
    model: str = ""
    choices: tuple[Choice, ...]
    usage: Usage = Usage()
    served_by: ServedBy = ServedBy()
    raw: dict[str, JsonValue] = {}

    @property
    def text(self) -> str:
        """Empty where the model only called tools."""
        return self._first.text

    @property
    def finish_reason(self) -> str | None:
        """`stop`, `length`, `tool_calls` …; None of a stream that is not over."""
        return self._first.finish_reason

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Calls that the model asks for."""
        return self._first.tool_calls

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """One for each output token, where the request asked for them."""
        return self._first.logprobs

    @property
    def reasoning(self) -> str:
        """What the model thought before it answered."""
        return self._first.reasoning

    @property
    def refusal(self) -> str:
        """Why the model will not answer; the text is empty then."""
        return self._first.refusal

    @property
    def message(self) -> Message:
        """The answer as a message of the next request."""
        return Message("assistant", self.text, self.tool_calls)

    def parse(self, shape: type[Shape]) -> Shape:
        """The text as JSON of that shape. Raises UnexpectedAnswerError with the first thing that is wrong."""
        try:
            return shape.model_validate_json(self.text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the text"
            raise UnexpectedAnswerError(
                f"{self.model} answered what is no {shape.__name__}: {place}: {first['msg']}; the text is "
                f"{self.text[:200]!r} (finish_reason {self.finish_reason})"
            ) from error

    @property
    def _first(self) -> Choice:
        return self.choices[0] if self.choices else Choice()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """New characters of a choice's tool call number `index`; `id` and `name` come with the first ones."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new in a stream, of one choice. `finish_reason` is set on the choice's last piece."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    token_ids: tuple[int, ...] = ()


class ModelCard(_Frozen):
    """One model of `/v1/models`. `max_model_len` counts prompt and output tokens; None: the server does not
    say."""

    id: str
    created: int = 0
    owned_by: str = ""
    max_model_len: int | None = None
