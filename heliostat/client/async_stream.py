"""A streamed answer, for `async for`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import chain
from types import TracebackType
from typing import Self, TypeAlias

import httpx

from heliostat.client.answer import Answer, Piece
from heliostat.client.call import Call, broke_off
from heliostat.client.reading import AnswerReader, check_is_stream
from heliostat.errors import HeliostatError

Begin: TypeAlias = Callable[[httpx.Response], Awaitable[object]]
Exchange: TypeAlias = Callable[[Call, Begin], Awaitable[httpx.Response]]


class AsyncStream:
    """`async with client.stream_chat(…) as stream: async for piece in stream: …`

    Entering sends the request and reads up to the first piece, with all that calls do until an answer begins:
    retries, the deadline, their errors. Iterating raises the error that the server sends, StreamBrokenError
    when the answer breaks off, and UnexpectedAnswerError. Nothing more is read ahead of the loop. Leaving
    early closes the connection, upon which the server stops.
    """

    _call: Call
    _response: httpx.Response
    _reader: AnswerReader | None = None
    _chunks: AsyncIterator[bytes]

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

    async def __aenter__(self) -> Self:
        self._call = self._new_call()
        self._response = await self._exchange(self._call, self._begin)
        self._call.began()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._response.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        reader = self._begun()
        while (piece := next(self._pieces, None)) is None:
            if reader.over:
                await self._end()
                raise StopAsyncIteration
            self._pieces = reader.feed(await self._read_on(reader))
        return piece

    async def read(self) -> Answer:
        """All that is left of it; the whole answer."""
        async for _ in self:
            pass
        return self.answer

    @property
    def answer(self) -> Answer:
        """As far as it has come; the whole one once the loop is over."""
        return self._begun().answer

    async def _begin(self, response: httpx.Response) -> None:
        """Up to the first piece."""
        check_is_stream(response.headers, self._call.where)
        reader = AnswerReader(response.headers, self._call.where, self._when_done)
        self._chunks = response.aiter_bytes()
        pieces: Iterator[Piece] = iter(())
        while (first := next(pieces, None)) is None and not reader.over:
            pieces = reader.feed(await anext(self._chunks, None))
        self._pieces = pieces if first is None else chain((first,), pieces)
        self._reader = reader

    async def _read_on(self, reader: AnswerReader) -> bytes | None:
        try:
            async with asyncio.timeout(self._call.read_s()):
                return await anext(self._chunks, None)
        except (TimeoutError, httpx.RequestError) as error:
            raise reader.broken(broke_off(error, self._call.timeout_s)) from error

    async def _end(self) -> None:
        """A connection that ends with its last event, as most do, can be used again."""
        if not self._response.is_closed:
            self._call.ended()
            with suppress(TimeoutError, httpx.RequestError):
                async with asyncio.timeout(self._call.read_s()):
                    await anext(self._chunks, None)
            await self._response.aclose()

    def _begun(self) -> AnswerReader:
        if self._reader is None:
            raise HeliostatError("the stream has not begun; write `async with … as stream:` around it")
        return self._reader
