"""What goes wrong on a network, over real sockets: one error each, and never a token twice."""

import asyncio
import json
import pickle

import pytest

from heliostat import (
    AsyncClient,
    Client,
    Hints,
    OtherStatusError,
    OverloadedError,
    Piece,
    PoolUnavailableError,
    RequestError,
    StreamBrokenError,
    TimedOutError,
    UnexpectedAnswerError,
    UnknownModelError,
    UnreachableError,
)

KOREAN = "안녕하세요, 세계! 👋 한글은 깨지지 않습니다"


async def dropped(exchange) -> None:
    exchange.drop()


def refusing(status: int, body: object, **headers: str):
    async def script(exchange) -> None:
        await exchange.answer(body, status, **headers)

    return script


def overloaded(retry_after: str):
    return refusing(429, {"error": {"message": "full", "code": 429}}, retry_after=retry_after)


async def begun(exchange) -> None:
    await exchange.head()
    await exchange.text("so ")
    await exchange.text("far")


async def test_a_connection_that_drops_before_the_answer_is_made_again(
    server, asker, time, answering
) -> None:
    server.then(dropped, dropped, answering("at last"))
    assert (await asker().chat("m", "q")).text == "at last"
    assert time.slept == [0.375, 0.75], "half a second, then one, less a random part"
    assert len({asked.content for asked in server.asked}) == 1 and len(server.asked) == 3


async def test_it_is_given_up_after_max_retries(server, asker, time) -> None:
    server.always = dropped
    with pytest.raises(UnreachableError, match=r"before the answer was there: .*\(3 attempts\)"):
        await asker().chat("m", "q")
    assert len(server.asked) == 3 and len(time.slept) == 2


async def test_nobody_listens(asker, time) -> None:
    with pytest.raises(UnreachableError, match="no connection"):
        await asker(base_url="http://127.0.0.1:1").chat("m", "q")
    assert len(time.slept) == 2


async def test_a_kept_connection_that_closes_as_it_is_used(server, asker, answering) -> None:
    """What HAProxy does when its keep-alive time is over."""
    server.then(answering("one"), dropped, answering("two"))
    client = asker()
    assert [(await client.chat("m", "q")).text for _ in range(2)] == ["one", "two"]
    assert server.connections == 2, "the first connection was kept, and dropped when it was used again"


async def test_an_unstreamed_answer_that_breaks_off_is_asked_for_again(server, asker, answering) -> None:
    async def half(exchange) -> None:
        await exchange.head(200, "application/json", content_length="1000")
        await exchange.send(b'{"choices": [')
        exchange.drop()

    server.then(half, answering("whole"))
    assert (await asker().chat("m", "q")).text == "whole"


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


async def test_a_storm_of_refusals_is_waited_out(server, time, answering) -> None:
    """32 tasks, each refused twice: all wait what the server says and come back at different times."""
    draws = iter(range(1000))
    server.then(*[overloaded("2")] * 64)
    server.always = answering("served")
    async with AsyncClient(
        server.url, sleep=time.async_sleep, random=lambda: next(draws) / 1000, max_retries=64
    ) as client:
        answers = await asyncio.gather(*(client.chat("m", "q") for _ in range(32)))
    assert {answer.text for answer in answers} == {"served"}
    assert len(server.asked) == 64 + 32
    assert len(time.slept) == len(set(time.slept)) == 64
    assert all(2 <= waited <= 2.5 for waited in time.slept)


async def test_a_date_says_when_to_come_back(server, asker, time, answering) -> None:
    server.then(overloaded("Sun, 06 Nov 1994 08:49:37 GMT"), answering("served"))
    client = asker(wall_clock=lambda: 784111772.0)  # five seconds before
    assert (await client.chat("m", "q")).text == "served"
    assert time.slept == [5.25]


@pytest.mark.parametrize("retry_after", ["600", "7"])
async def test_who_cannot_wait_that_long_is_told_at_once(server, asker, time, retry_after) -> None:
    server.then(overloaded(retry_after))
    with pytest.raises(OverloadedError, match="full") as caught:
        await asker(deadline_s=5).chat("m", "q")
    assert caught.value.retry_after_s == float(retry_after)
    assert time.slept == [] and len(server.asked) == 1


async def test_every_attempt_tells_what_is_left_of_the_deadline(server, asker, answering) -> None:
    server.then(overloaded("2"), dropped, answering("served"))
    await asker().chat("m", "q", hints=Hints(deadline_s=10))
    assert [asked.headers["x-heliostat-deadline"] for asked in server.asked] == ["10.000", "7.750", "7.000"]


async def test_a_server_that_is_too_slow_for_the_deadline(server, asker, answering) -> None:
    left = asyncio.Event()

    async def silent(exchange) -> None:
        await exchange.client_left()
        left.set()

    server.then(silent, silent, answering("ready"))
    client = asker()
    with pytest.raises(TimedOutError, match=r"the deadline of 0\.05 s is over"):
        await client.chat("m", "q", hints=Hints(deadline_s=0.05))
    async with asyncio.timeout(10):
        await left.wait()
    with pytest.raises(TimedOutError, match="the deadline of"):
        await client.pieces(client.client.stream_chat("m", "q", hints=Hints(deadline_s=0.05)), [])
    assert (await client.chat("m", "q")).text == "ready"


async def test_a_client_that_blocks_has_one_deadline_for_all_steps(server) -> None:
    """Each of httpx's timeouts is for one step: reading gets what connecting has left."""

    async def silent(exchange) -> None:
        await exchange.client_left()

    server.then(silent)
    first_three = iter([0.0, 0.0, 0.0])  # the call, its attempt, its connection; and then time jumps
    clock = lambda: next(first_three, 599.95)  # noqa: E731
    over = pytest.raises(TimedOutError, match="the deadline of 600 s is over")
    with Client(server.url, timeout_s=900, deadline_s=600, clock=clock) as client, over:
        await asyncio.to_thread(client.chat, "m", "q")


async def test_the_deadline_is_for_the_beginning_of_a_stream_only(server, asker, time) -> None:
    async def slow(exchange) -> None:
        await exchange.head()
        await exchange.text("a")
        time.now_s += 100
        await exchange.text("b", "stop")
        await exchange.event("[DONE]")
        await exchange.end()

    server.then(slow)
    client, pieces = asker(), []
    await client.pieces(client.client.stream_chat("m", "q", hints=Hints(deadline_s=50)), pieces)
    assert [piece.text for piece in pieces] == ["a", "b"]


async def test_a_server_that_falls_silent(server, asker) -> None:
    """`timeout_s` is between two reads; it is no reason to ask again, the server may be at work on it."""

    async def silent(exchange) -> None:
        await exchange.client_left()

    async def falls_silent(exchange) -> None:
        await begun(exchange)
        await exchange.client_left()

    server.then(silent, falls_silent)
    client = asker(timeout_s=0.05)
    with pytest.raises(TimedOutError, match=r"nothing came for 0\.05 s"):
        await client.chat("m", "q")
    with pytest.raises(StreamBrokenError, match=r"nothing came for 0\.05 s") as caught:
        await client.pieces(client.client.stream_chat("m", "q"), [])
    assert caught.value.text == "so far"
    assert len(server.asked) == 2


async def test_a_cancelled_task_closes_its_connection(server) -> None:
    began, left = asyncio.Event(), asyncio.Event()

    async def silent(exchange) -> None:
        began.set()
        await exchange.client_left()
        left.set()

    server.then(silent)
    async with AsyncClient(server.url) as client, asyncio.timeout(10):
        task = asyncio.create_task(client.chat("m", "q"))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await left.wait()


@pytest.mark.parametrize("kind", [AsyncClient, Client])
async def test_who_leaves_a_stream_early_closes_its_connection(server, kind) -> None:
    left = asyncio.Event()

    async def endless(exchange) -> None:
        await begun(exchange)
        await exchange.client_left()
        left.set()

    def first_of(client: Client) -> Piece:
        with client.stream_chat("m", "q") as stream:
            return next(stream)

    server.then(endless)
    async with asyncio.timeout(10):
        if kind is AsyncClient:
            async with AsyncClient(server.url) as client, client.stream_chat("m", "q") as stream:
                first = await anext(stream)
        else:
            with Client(server.url) as client:
                first = await asyncio.to_thread(first_of, client)
        assert first.text == "so "
        await left.wait()


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


PAGE = "<html>\n<body><h1>It works!</h1></body></html>"


@pytest.mark.parametrize(
    ("status", "kind", "says", "attempts"),
    [
        (200, UnexpectedAnswerError, "It works", 1),
        (302, UnexpectedAnswerError, "302 Found", 1),
        (404, UnexpectedAnswerError, "base_url is the server's root", 1),
        (418, OtherStatusError, "418", 1),
        (500, RequestError, "500 Internal Server Error: <html>", 1),
        (502, OtherStatusError, "502 Bad Gateway: <html> <body><h1>It works!", 3),
        (503, PoolUnavailableError, "503 Service Unavailable", 3),
        (504, OtherStatusError, "504 Gateway Timeout", 3),
    ],
)
async def test_a_page_instead_of_an_answer(server, asker, status, kind, says, attempts) -> None:
    async def page(exchange) -> None:
        await exchange.answer(PAGE, status, "text/html")

    server.always = page
    with pytest.raises(kind, match=says) as caught:
        await asker().chat("m", "q")
    assert server.url in str(caught.value)
    assert len(server.asked) == attempts


async def test_a_page_instead_of_a_stream(server, asker) -> None:
    async def page(exchange) -> None:
        await exchange.answer(PAGE, content_type="text/html")

    server.then(page)
    client = asker()
    with pytest.raises(UnexpectedAnswerError, match="text/html where a stream"):
        await client.pieces(client.client.stream_chat("m", "q"), [])


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no such model", "type": "NotFoundError", "code": 404}},
        {"error": "no such model"},
        {"object": "error", "message": "no such model"},
        {"detail": "no such model"},
    ],
)
async def test_every_servers_error_object_is_read(server, asker, body) -> None:
    server.then(refusing(404, body))
    with pytest.raises(UnknownModelError, match=r"^no such model$"):
        await asker().chat("m", "q")
