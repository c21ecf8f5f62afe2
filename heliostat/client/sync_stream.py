"""A streamed answer, for `for`."""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import httpx

from heliostat.client.answer import Answer, Piece
from heliostat.client.call import Call, broke_off
from heliostat.client.reading import AnswerReader, check_is_stream
from heliostat.errors import HeliostatError


class Stream:
    """`with client.stream_chat(…) as stream: for piece in stream: …`

    The request is sent on entry. Leaving early closes the connection, upon which the server stops.
    Iterating raises the error that the server sends, StreamBrokenError when the answer breaks off, and
    UnexpectedAnswerError. Nothing is read ahead of the loop.
    """

    _call: Call
    _response: httpx.Response
    _reader: AnswerReader | None = None
    _chunks: Iterator[bytes]

    def __init__(
        self,
        begin: Callable[[], Call],
        exchange: Callable[[Call], httpx.Response],
        when_done: Callable[[Answer], None] | None = None,
    ) -> None:
        self._begin = begin
        self._exchange = exchange
        self._when_done = when_done
        self._pieces: Iterator[Piece] = iter(())

    def __enter__(self) -> Self:
        self._call = self._begin()
        self._response = self._exchange(self._call)
        self._reader = AnswerReader(self._response.headers, self._call.where, self._when_done)
        self._chunks = self._response.iter_bytes()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        reader = self._begun()
        check_is_stream(self._response.headers, self._call.where)
        while True:
            if (piece := next(self._pieces, None)) is not None:
                return piece
            if reader.over:
                raise StopIteration
            self._pieces = reader.feed(self._read_on(reader))

    def read(self) -> Answer:
        """All that is left of it; the whole answer."""
        for _ in self:
            pass
        return self.answer

    @property
    def answer(self) -> Answer:
        """As far as it has come; the whole one once the loop is over."""
        return self._begun().answer

    def _read_on(self, reader: AnswerReader) -> bytes | None:
        # To the end of the connection, also after the last event: then it can be used again.
        try:
            return next(self._chunks, None)
        except httpx.RequestError as error:
            if reader.done:
                return None
            raise reader.broken(broke_off(error, self._call.timeout_s)) from error

    def _begun(self) -> AnswerReader:
        if self._reader is None:
            raise HeliostatError("the stream has not begun; write `with … as stream:` around it")
        return self._reader
