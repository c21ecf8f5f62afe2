"""What goes wrong in mid-stream, over real sockets: never a token twice, and none is lost that came."""

import asyncio
import json
import pickle
from time import monotonic

import pytest

from heliostat import (
    AsyncClient,
    AsyncStream,
    Client,
    HeliostatError,
    Hints,
    Piece,
    PoolUnavailableError,
    RequestError,
    Stream,
    StreamBrokenError,
    TimedOutError,
    UnexpectedAnswerError,
)

KOREAN = "안녕하세요, 세계! 👋 한글은 깨지지 않습니다"


PAGE = "<html>\n<body><h1>It works!</h1></body></html>"


async def begun(exchange) -> None:
    await exchange.head()
    await exchange.text("so ")
    await exchange.text("far")


async def test_a_stream_that_breaks_off_has_its_text_and_is_not_asked_for_again(server, asker, time) -> None:
    async def breaks(exchange) -> None:
        await begun(exchange)
        exchange.drop()

    server.then(breaks)
    client, pieces = asker(), []
    with pytest.raises(StreamBrokenError) as caught:
        await client.pieces(client.client.stream_chat("m", "q"), pieces)
    assert caught.value.text == "".join(piece.text for piece in pieces) == "so far"
    assert pickle.loads(pickle.dumps(caught.value)).text == "so far"
    assert len(server.asked) == 1 and time.slept == []


async def test_a_stream_that_ends_too_early_is_broken(server, asker) -> None:
    async def ends(exchange) -> None:
        await begun(exchange)
        await exchange.end()

    server.then(ends)
    client = asker()
    with pytest.raises(StreamBrokenError, match="ended before the answer did"):
        await client.pieces(client.client.stream_chat("m", "q"), [])


async def test_a_server_that_restarts_in_mid_stream(server, asker, answering) -> None:
    """The answer is lost, the client is not."""

    async def restarts(exchange) -> None:
        await begun(exchange)
        server._server.close()
        exchange.drop()

    server.then(restarts, answering("after"))
    client = asker()
    with pytest.raises(StreamBrokenError) as caught:
        await client.pieces(client.client.stream_chat("m", "q"), [])
    assert caught.value.text == "so far"
    async with server:
        assert (await client.chat("m", "q")).text == "after"


async def test_the_deadline_is_for_the_beginning_of_a_stream_only(server, asker, time) -> None:
    """The second piece comes when another client has lost its patience: far later than the deadline."""
    later = asyncio.Event()

    async def silent(exchange) -> None:
        await exchange.client_left()

    async def slow(exchange) -> None:
        await exchange.head()
        await exchange.text("a")
        await later.wait()
        await exchange.text("b", "stop")
        await exchange.event("[DONE]")
        await exchange.end()

    async def lose_patience() -> None:
        with pytest.raises(TimedOutError):
            await asker(answer_timeout_s=1.3).chat("m", "q")
        later.set()

    server.then(slow, silent)
    client, pieces = asker(clock=monotonic), []
    stream = client.client.stream_chat("m", "q", hints=Hints(deadline_s=1))
    reading = asyncio.create_task(client.pieces(stream, pieces))
    async with asyncio.timeout(10):
        await server.has_asked(1)
        await lose_patience()
        await reading
    assert [piece.text for piece in pieces] == ["a", "b"]


async def test_a_server_that_falls_silent(server, asker) -> None:
    async def falls_silent(exchange) -> None:
        await begun(exchange)
        await exchange.client_left()

    server.then(falls_silent)
    client = asker(timeout_s=0.5)
    with pytest.raises(StreamBrokenError, match=r"nothing came for 0\.5 s") as caught:
        await client.pieces(client.client.stream_chat("m", "q"), [])
    assert caught.value.text == "so far"
    assert len(server.asked) == 1


@pytest.mark.parametrize("kind", [AsyncClient, Client])
async def test_who_leaves_a_stream_early_closes_its_connection(server, kind) -> None:
    left = asyncio.Event()

    async def endless(exchange) -> None:
        await begun(exchange)
        await exchange.client_left()
        left.set()

    def first_of(client: Client) -> tuple[Piece, Stream]:
        with client.stream_chat("m", "q") as stream:
            return next(stream), stream  # held: nobody else may close it

    server.then(endless)
    async with asyncio.timeout(10):
        if kind is AsyncClient:
            async with AsyncClient(server.url) as client:
                async with client.stream_chat("m", "q") as stream:
                    first = await anext(stream)
                await left.wait()  # while the client itself is open
        else:
            with Client(server.url) as client:
                first, _stream = await asyncio.to_thread(first_of, client)
                await left.wait()
    assert first.text == "so "


async def test_a_slow_reader_holds_back_the_server(server) -> None:
    """Nothing is read ahead: what the server could send is what sockets hold, not the 64 MiB that it has."""
    piece, number = "x" * 2**16, 1024
    sent, stuck = 0, asyncio.Event()

    async def much(exchange) -> None:
        nonlocal sent
        await exchange.head()
        for _ in range(number):
            exchange.writer.write(b"")
            if exchange.writer.transport.get_write_buffer_size() > 0:
                stuck.set()
            await exchange.text(piece)
            sent += len(piece)
        await exchange.text("", "stop")
        await exchange.event("[DONE]")
        await exchange.end()

    server.then(much)
    most = read = 0
    async with AsyncClient(server.url) as client, client.stream_chat("m", "q") as stream:
        await anext(stream)
        async with asyncio.timeout(30):
            await stuck.wait()
        async for got in stream:
            read += len(got.text)
            most = max(most, sent - read)
    assert read == len(piece) * (number - 1)
    assert most < 16 * 2**20


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
async def test_korean_is_whole_however_the_bytes_are_cut(server, asker, size) -> None:
    async def cut(exchange) -> None:
        await exchange.head()
        deltas = [{"delta": {"content": letter}} for letter in KOREAN] + [
            {"delta": {}, "finish_reason": "stop"}
        ]
        events = [json.dumps({"choices": [delta]}, ensure_ascii=False) for delta in deltas]
        data = "".join(f"data: {event}\r\n\r\n" for event in [*events, "[DONE]"]).encode()
        for begin in range(0, len(data), size):
            await exchange.chunk(data[begin : begin + size])
        await exchange.end()

    server.then(cut)
    client, pieces = asker(), []
    answer = await client.pieces(client.client.stream_chat("m", "q"), pieces)
    assert [piece.text for piece in pieces] == [*KOREAN, ""]
    assert answer.text == KOREAN


async def test_an_error_in_mid_stream_is_the_error_that_it_says(server, asker) -> None:
    async def fails(exchange) -> None:
        await begun(exchange)
        await exchange.event({"error": {"message": "pool decode-base has no replica", "code": 503}})
        await exchange.event("[DONE]")
        await exchange.end()

    server.then(fails)
    client, pieces = asker(), []
    stream = client.client.stream_chat("m", "q")
    with pytest.raises(PoolUnavailableError, match="pool decode-base has no replica"):
        await client.pieces(stream, pieces)
    assert "".join(piece.text for piece in pieces) == stream.answer.text == "so far"
    assert len(server.asked) == 1


async def test_a_page_instead_of_a_stream(server, asker) -> None:
    async def page(exchange) -> None:
        await exchange.answer(PAGE, content_type="text/html")

    server.then(page)
    client = asker()
    with pytest.raises(UnexpectedAnswerError, match="text/html where a stream"):
        await client.pieces(client.client.stream_chat("m", "q"), [])


async def test_a_stream_that_was_not_begun_says_what_to_write(server, asker) -> None:
    stream = asker().client.stream_chat("m", "q")
    with pytest.raises(HeliostatError, match=r"with … as stream"):
        await anext(stream) if isinstance(stream, AsyncStream) else next(stream)
    assert server.asked == []


@pytest.mark.parametrize(
    "event", [{"error": "out of memory"}, {"object": "error", "message": "out of memory"}]
)
async def test_other_servers_error_events(server, asker, event) -> None:
    async def fails(exchange) -> None:
        await exchange.head()
        await exchange.event(event)
        await exchange.end()

    server.then(fails)
    client = asker()
    with pytest.raises(RequestError, match=r"^out of memory$"):
        await client.pieces(client.client.stream_chat("m", "q"), [])
