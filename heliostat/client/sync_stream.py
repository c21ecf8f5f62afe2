"""A streamed answer, for `for`."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from types import TracebackType
from typing import Self, TypeAlias

import httpx

from heliostat.client.answer import Answer, Piece
from heliostat.client.call import Call, broke_off
from heliostat.client.reading import AnswerReader, check_is_stream
from heliostat.errors import HeliostatError

Begin: TypeAlias = Callable[[httpx.Response], object]
Exchange: TypeAlias = Callable[[Call, Begin], httpx.Response]


class Stream:
    """`with client.stream_chat(…) as stream: for piece in stream: …`

    Entering sends the request and reads up to the first piece, with all that calls do until an answer begins:
    retries, the deadline, their errors. Iterating raises the error that the server sends, StreamBrokenError
    when the answer breaks off, and UnexpectedAnswerError. Nothing more is read ahead of the loop. Leaving
    early closes the connection, upon which the server stops.
    """

    _call: Call
    _response: httpx.Response
    _reader: AnswerReader | None = None
    _chunks: Iterator[bytes]

    def __init__(
        self,
        call: Callable[[], Call],
        exchange: Exchange,
        when_done: Callable[[Answer], None] | None = None,
    ) -> None:
        self._new_call = call
        self._exchange = exchange
        self._when_done = when_done
        self._pieces: Iterator[Piece] = iter(())

    def __enter__(self) -> Self:
        self._call = self._new_call()
        self._response = self._exchange(self._call, self._begin)
        self._call.began()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        reader = self._begun()
        while (piece := next(self._pieces, None)) is None:
            if reader.over:
                self._end()
                raise StopIteration
            self._pieces = reader.feed(self._read_on(reader))
        return piece

    def read(self) -> Answer:
        """All that is left of it; the whole answer."""
        for _ in self:
            pass
        return self.answer

    @property
    def answer(self) -> Answer:
        """As far as it has come; the whole one once the loop is over."""
        return self._begun().answer

    def _begin(self, response: httpx.Response) -> None:
        """Up to the first piece."""
        check_is_stream(response.headers, self._call.where)
        reader = AnswerReader(response.headers, self._call.where, self._when_done)
        self._chunks = response.iter_bytes()
        pieces: Iterator[Piece] = iter(())
        while (first := next(pieces, None)) is None and not reader.over:
            pieces = reader.feed(next(self._chunks, None))
        self._pieces = pieces if first is None else chain((first,), pieces)
        self._reader = reader

    def _read_on(self, reader: AnswerReader) -> bytes | None:
        try:
            return next(self._chunks, None)
        except httpx.RequestError as error:
            raise reader.broken(broke_off(error, self._call.timeout_s)) from error

    def _end(self) -> None:
        """A connection that ends with its last event, as most do, can be used again."""
        if not self._response.is_closed:
            self._call.ended()
            with suppress(httpx.RequestError):
                next(self._chunks, None)
            self._response.close()

    def _begun(self) -> AnswerReader:
        if self._reader is None:
            raise HeliostatError("the stream has not begun; write `with … as stream:` around it")
        return self._reader
