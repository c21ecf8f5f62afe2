"""OpenAI's answers as they come, as far as they are read: chats and completions, whole and in events."""

from collections.abc import Callable
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from heliostat.client.answer import Piece, TokenLogprob, ToolCallDelta
from heliostat.client.usage import UsageBody

RAW: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])
"""Any JSON object."""

Number: TypeAlias = Callable[[int, int | None, str], int]
"""The number of a tool call, from its choice's, the one that the server gave it, and its id."""


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Part(BaseModel):
    """Of content in parts. Other kinds of parts are in `Answer.raw`."""

    text: str | None = None
    refusal: str | None = None


class _Said(BaseModel):
    """A chat's `message`, or `delta`."""

    content: str | tuple[_Part, ...] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[_ToolCall, ...] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, tuple):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""

    @property
    def refused(self) -> str:
        parts = self.content if isinstance(self.content, tuple) else ()
        return self.refusal or "".join(part.refusal or "" for part in parts)


class _TopLogprob(BaseModel):
    token: str
    logprob: float


class _ChatLogprob(BaseModel):
    token: str
    logprob: float | None = None
    top_logprobs: tuple[_TopLogprob, ...] | None = None


class _Logprobs(BaseModel):
    """Chats have `content`; completions have one list each for tokens and what belongs to them."""

    content: tuple[_ChatLogprob, ...] | None = None
    tokens: tuple[str, ...] | None = None
    token_logprobs: tuple[float | None, ...] | None = None
    top_logprobs: tuple[dict[str, float] | None, ...] | None = None

    def read(self) -> tuple[TokenLogprob, ...]:
        if self.content is not None:
            return tuple(
                TokenLogprob(
                    token=each.token,
                    logprob=each.logprob,
                    top={top.token: top.logprob for top in each.top_logprobs or ()},
                )
                for each in self.content
            )
        tokens = self.tokens or ()
        found, tops = self.token_logprobs or (None,) * len(tokens), self.top_logprobs or ({},) * len(tokens)
        return tuple(
            TokenLogprob(token=token, logprob=logprob, top=top or {})
            for token, logprob, top in zip(tokens, found, tops, strict=False)
        )


class _Choice(BaseModel):
    index: int = 0
    text: str | None = None
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: tuple[int, ...] | None = None

    def read(self, number: Number) -> Piece:
        said = self.message or self.delta or _Said(content=self.text)
        return Piece(
            text=said.text,
            index=self.index,
            finish_reason=self.finish_reason or None,  # some servers say "" until the end
            tool_calls=tuple(
                self._call(call, place if self.message else number(self.index, call.index, call.id or ""))
                for place, call in enumerate(said.tool_calls or ())
            ),
            logprobs=self.logprobs.read() if self.logprobs else (),
            reasoning=said.reasoning or said.reasoning_content or "",
            refusal=said.refused,
            token_ids=self.token_ids or (),
        )

    def _call(self, call: _ToolCall, number: int) -> ToolCallDelta:
        function = call.function or _Function()
        return ToolCallDelta(number, call.id or "", function.name or "", function.arguments or "")


class Body(BaseModel):
    """A whole answer, or one event of a stream. `choices` may be missing from an error, and from a last event
    that only has usage. Some servers count their answers, and the number is the id."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: str | None = None
    model: str | None = None
    choices: tuple[_Choice, ...] | None = None
    usage: UsageBody | None = None
    error: JsonValue = None

    def pieces(self, number: Number) -> tuple[Piece, ...]:
        """What each choice says."""
        return tuple(choice.read(number) for choice in self.choices or ())
