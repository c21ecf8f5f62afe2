"""From bytes to an Answer, at once or piece by piece; no I/O."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from heliostat import headers
from heliostat.client.answer import Answer, ModelCard, Piece, ServedBy
from heliostat.client.bodies import RAW, Body
from heliostat.client.choices import ChoiceSoFar
from heliostat.client.events import EventReader
from heliostat.client.failures import late_error, not_openai, told_in
from heliostat.client.usage import UsageBody, read_usage
from heliostat.errors import HeliostatError, StreamBrokenError, UnexpectedAnswerError

if TYPE_CHECKING:
    from heliostat.status import ClusterStatus

DONE = "[DONE]"
NO_CHOICES = "what is no answer of OpenAI's protocol (choices: missing)"
Shape = TypeVar("Shape", bound=BaseModel)


class _Cards(BaseModel):
    data: tuple[ModelCard, ...]


class AnswerReader:
    """One answer as it comes. `answered` are the answer's headers, `where` the address that was asked.

    `when_done` is called once with the whole answer. `over`: nothing more comes, because all is here or
    because of an error.
    """

    def __init__(
        self, answered: Mapping[str, str], where: str, when_done: Callable[[Answer], None] | None = None
    ) -> None:
        self.over = False
        self._when_done = when_done
        self._answered = answered
        self._where = where
        self._events = EventReader()
        self._choices: defaultdict[int, ChoiceSoFar] = defaultdict(ChoiceSoFar)
        self._id = self._model = ""
        self._usage: UsageBody | None = None
        self._last: bytes | str = b""

    def feed(self, chunk: bytes | None) -> Iterator[Piece]:
        """New pieces; None: the connection has ended.

        Raises what an error event stands for, StreamBrokenError if it ended too early, and
        UnexpectedAnswerError.
        """
        try:
            for data in self._events.end() if chunk is None else self._events.feed(chunk):
                yield from self._take(data)
        except HeliostatError:
            self.over = True
            raise
        if chunk is None and not self.over:
            # Some servers send no [DONE]; what has ended is then known from the choices alone.
            if not self._all_finished():
                raise self.broken("the connection ended before the answer did")
            self._finish()

    def broken(self, why: str) -> StreamBrokenError:
        """What to raise when the connection broke."""
        self.over = True
        return StreamBrokenError(f"{self._where}: {why}", self.text)

    def whole(self, body: bytes) -> Answer:
        """An unstreamed answer. Raises UnexpectedAnswerError, and what an error object stands for."""
        read = self._read(body)
        if read.choices is None:
            raise not_openai(NO_CHOICES, body, self._where)
        self._add(read, body)
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
        if self.over or not data.strip():
            return ()
        if data.strip() == DONE:
            self._finish()
            return ()
        body = self._read(data)
        if body.choices is None and body.usage is None:
            if RAW.validate_json(data):
                raise not_openai(NO_CHOICES, data, self._where)
            return ()  # {} only keeps the connection open
        pieces = self._add(body, data)
        return tuple(piece for piece in pieces if piece != Piece(index=piece.index))

    def _finish(self) -> None:
        self.over = True
        if self._when_done is not None:
            self._when_done(self.answer)

    def _read(self, raw: bytes | str) -> Body:
        """Raises what an error object stands for: some servers send one beside `choices`."""
        body = _read(Body, raw, self._where)
        if body.error or (body.choices is None and told_in(raw) is not None):
            raise late_error(raw, self._where)
        return body

    def _add(self, body: Body, raw: bytes | str) -> tuple[Piece, ...]:
        self._id, self._model = body.id or self._id, body.model or self._model
        self._usage, self._last = body.usage or self._usage, raw
        pieces = body.pieces(lambda choice, *call: self._choices[choice].numbers.number(*call))
        for piece in pieces:
            self._choices[piece.index].add(piece)
        return pieces

    def _all_finished(self) -> bool:
        return bool(self._choices) and all(each.finish_reason for each in self._choices.values())


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
    if not content_type.lower().startswith("text/event-stream"):
        raise UnexpectedAnswerError(f"{where} answered {content_type} where a stream of events was asked for")


def _read(shape: type[Shape], body: bytes | str, where: str) -> Shape:
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        what = f"what is no answer of OpenAI's protocol ({place + ': ' if place else ''}{first['msg']})"
        raise not_openai(what, body, where) from error
