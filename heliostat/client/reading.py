"""From bytes to an Answer, at once or piece by piece; no I/O."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from heliostat import headers
from heliostat.client.answer import Answer, Choice, ModelCard, Piece, ServedBy, TokenLogprob, ToolCallDelta
from heliostat.client.bodies import RAW, Body, joined
from heliostat.client.events import EventReader
from heliostat.client.failures import error_of, not_openai, told_in
from heliostat.client.usage import UsageBody, read_usage
from heliostat.errors import HeliostatError, StreamBrokenError, UnexpectedAnswerError

if TYPE_CHECKING:
    from heliostat.status import ClusterStatus

DONE = "[DONE]"
Shape = TypeVar("Shape", bound=BaseModel)


class _Cards(BaseModel):
    data: tuple[ModelCard, ...]


class _ChoiceSoFar:
    """One choice's pieces, put together once they are asked for."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._token_ids: list[int] = []
        self._calls: defaultdict[int, list[ToolCallDelta]] = defaultdict(list)
        self.finish_reason: str | None = None

    def add(self, piece: Piece) -> None:
        self.text.append(piece.text)
        self._reasoning.append(piece.reasoning)
        self._logprobs += piece.logprobs
        self._token_ids += piece.token_ids
        self.finish_reason = piece.finish_reason or self.finish_reason
        for call in piece.tool_calls:
            self._calls[call.index].append(call)

    def choice(self, index: int) -> Choice:
        return Choice(
            index=index,
            text="".join(self.text),
            finish_reason=self.finish_reason,
            tool_calls=tuple(joined(parts) for _, parts in sorted(self._calls.items())),
            logprobs=tuple(self._logprobs),
            reasoning="".join(self._reasoning),
            token_ids=tuple(self._token_ids),
        )


class AnswerReader:
    """One answer as it comes. `answered` are the answer's headers, `where` the address that was asked.

    `when_done` is called once with the whole answer.
    """

    def __init__(
        self, answered: Mapping[str, str], where: str, when_done: Callable[[Answer], None] | None = None
    ) -> None:
        self.done = self.over = False
        self._when_done = when_done
        self._answered = answered
        self._where = where
        self._events = EventReader()
        self._choices: defaultdict[int, _ChoiceSoFar] = defaultdict(_ChoiceSoFar)
        self._id = self._model = ""
        self._usage: UsageBody | None = None
        self._last: bytes | str = b""

    def feed(self, chunk: bytes | None) -> Iterator[Piece]:
        """New pieces; None: the connection has ended.

        Raises what an error event stands for, StreamBrokenError if it ended too early, and
        UnexpectedAnswerError.
        """
        if chunk is not None:
            for data in self._events.feed(chunk):
                yield from self._take(data)
            return
        self.over = True
        for data in self._events.end():
            yield from self._take(data)
        # Some servers send no [DONE]; what has ended is then known from the choices alone.
        if not self.done and not self._all_finished():
            raise self.broken("the connection ended before the answer did")
        self._finish()

    def broken(self, why: str) -> StreamBrokenError:
        """What to raise when the connection broke."""
        return StreamBrokenError(f"{self._where}: {why}", self.text)

    def whole(self, body: bytes) -> Answer:
        """An unstreamed answer. Raises UnexpectedAnswerError."""
        self._add(_read(Body, body, self._where), body)
        self._finish()
        return self.answer

    @property
    def text(self) -> str:
        """Of the first choice, so far."""
        return "".join(self._choices[0].text) if 0 in self._choices else ""

    @property
    def answer(self) -> Answer:
        """As far as it has come."""
        return Answer(
            id=self._id,
            model=self._model,
            choices=tuple(so_far.choice(index) for index, so_far in sorted(self._choices.items())),
            usage=read_usage(self._usage, self._answered),
            served_by=ServedBy(
                prefill=self._answered.get(headers.PREFILL, ""),
                decode=self._answered.get(headers.DECODE, ""),
            ),
            raw=RAW.validate_json(self._last) if self._last else {},
        )

    def _take(self, data: str) -> tuple[Piece, ...]:
        if self.done:
            return ()
        if data.strip() == DONE:
            self._finish()
            return ()
        if '"choices"' not in data and told_in(data) is not None:
            raise self._error(data)
        pieces = self._add(_read(Body, data, self._where), data)
        return tuple(piece for piece in pieces if piece != Piece(index=piece.index))

    def _finish(self) -> None:
        if not self.done:
            self.done = True
            if self._when_done is not None:
                self._when_done(self.answer)

    def _add(self, body: Body, raw: bytes | str) -> tuple[Piece, ...]:
        self._id, self._model = body.id or self._id, body.model or self._model
        self._usage, self._last = body.usage or self._usage, raw
        pieces = body.pieces()
        for piece in pieces:
            self._choices[piece.index].add(piece)
        return pieces

    def _all_finished(self) -> bool:
        return bool(self._choices) and all(each.finish_reason for each in self._choices.values())

    def _error(self, body: str) -> HeliostatError:
        """An error event, as if the server had said it in time. Its `code` is an HTTP status, or is not."""
        error = RAW.validate_json(body).get("error")
        code: JsonValue = error.get("code") if isinstance(error, dict) else None
        status = int(code) if isinstance(code, int) or (isinstance(code, str) and code.isdigit()) else 500
        return error_of(status if 400 <= status < 600 else 500, body.encode(), None, self._where)


def read_models(body: bytes, where: str) -> tuple[ModelCard, ...]:
    """`/v1/models`. Raises UnexpectedAnswerError."""
    return _read(_Cards, body, where).data


def read_status(body: bytes, where: str) -> "ClusterStatus":
    """`/status` of a Heliostat cluster. Raises UnexpectedAnswerError."""
    from heliostat.status import ClusterStatus  # only who asks for it pays for the import

    return _read(ClusterStatus, body, where)


def check_is_stream(answered: Mapping[str, str], where: str) -> None:
    """Raises UnexpectedAnswerError for what is no stream of events."""
    content_type = answered.get("content-type", "no content type")
    if not content_type.startswith("text/event-stream"):
        raise UnexpectedAnswerError(f"{where} answered {content_type} where a stream of events was asked for")


def _read(shape: type[Shape], body: bytes | str, where: str) -> Shape:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        what = f"what is no answer of OpenAI's protocol ({place + ': ' if place else ''}{first['msg']})"
        raise not_openai(what, body, where) from error
