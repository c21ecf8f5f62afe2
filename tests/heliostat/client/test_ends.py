"""What a stream does once it is over, over real sockets."""

import asyncio

import pytest

from heliostat import AsyncStream, RequestError, Stream


async def begun(exchange) -> None:
    await exchange.head()
    await exchange.text("so ")
    await exchange.text("far")


async def test_what_has_failed_is_over(server, asker) -> None:
    async def fails(exchange) -> None:
        await begun(exchange)
        await exchange.event({"error": {"message": "lost", "code": 500}})
        await exchange.text("never read")
        await exchange.end()

    async def read(stream: AsyncStream) -> list[str]:
        async with stream:
            with pytest.raises(RequestError, match="lost"):
                await stream.read()
            return [piece.text async for piece in stream]

    def read_blocking(stream: Stream) -> list[str]:
        with stream:
            with pytest.raises(RequestError, match="lost"):
                stream.read()
            return [piece.text for piece in stream]

    server.then(fails)
    stream = asker().client.stream_chat("m", "q")
    if isinstance(stream, AsyncStream):
        assert await read(stream) == []
    else:
        assert await asyncio.to_thread(read_blocking, stream) == []


async def test_a_stream_is_over_with_its_last_event(server, asker) -> None:
    """A connection that goes on after it is left alone; one that ends with it is used again."""

    async def goes_on(exchange) -> None:
        await begun(exchange)
        await exchange.event("[DONE]")
        await exchange.client_left()

    async def ends(exchange) -> None:
        await begun(exchange)
        await exchange.event("[DONE]")
        await exchange.end()

    server.then(ends, goes_on, ends)
    client = asker()
    connections = []
    async with asyncio.timeout(10):
        for _ in range(3):
            await client.pieces(client.client.stream_chat("m", "q"), [])
            connections.append(server.connections)
    assert connections == [1, 1, 2]
