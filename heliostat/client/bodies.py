"""OpenAI's answers as they come, as far as they are read: chats and completions, whole and in events."""

from pydantic import BaseModel, JsonValue, TypeAdapter

from heliostat.client.answer import Piece, TokenLogprob, ToolCallDelta
from heliostat.client.messages import ToolCall
from heliostat.client.usage import UsageBody

RAW: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])
"""Any JSON object."""


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(BaseModel):
    index: int = 0
    id: str | None = None
    function: _Function = _Function()


class _Said(BaseModel):
    """A chat's `message`, or `delta`."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[_ToolCall, ...] | None = None


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

    def read(self) -> Piece:
        said = self.message or self.delta or _Said(content=self.text)
        return Piece(
            text=said.content or "",
            index=self.index,
            finish_reason=self.finish_reason,
            tool_calls=tuple(
                ToolCallDelta(
                    index=place if self.message else call.index,
                    id=call.id or "",
                    name=call.function.name or "",
                    arguments=call.function.arguments or "",
                )
                for place, call in enumerate(said.tool_calls or ())
            ),
            logprobs=self.logprobs.read() if self.logprobs else (),
            reasoning=said.reasoning or said.reasoning_content or "",
            token_ids=self.token_ids or (),
        )


class Body(BaseModel):
    """A whole answer, or one event of a stream."""

    id: str | None = None
    model: str | None = None
    choices: tuple[_Choice, ...]
    usage: UsageBody | None = None

    def pieces(self) -> tuple[Piece, ...]:
        """What each choice says."""
        return tuple(choice.read() for choice in self.choices)


def joined(parts: list[ToolCallDelta]) -> ToolCall:
    """One call out of its pieces."""
    return ToolCall(
        id=next((part.id for part in parts if part.id), ""),
        name="".join(part.name for part in parts),
        arguments="".join(part.arguments for part in parts),
    )
