"""How long an answer may take to begin, over real sockets: a stream begins with its first piece."""

import asyncio
from itertools import count
from socket import socket
from time import monotonic

import pytest

from heliostat import Client, Hints, TimedOutError, UnreachableError


async def silent(exchange) -> None:
    await exchange.client_left()


async def for_ever(send) -> None:
    while True:
        await send()
        await asyncio.sleep(0)  # to let others run: what is sent goes into the socket at once


async def pinging(exchange) -> None:
    await exchange.head()
    await for_ever(lambda: exchange.chunk(b": ping\n\n"))


async def dribbling(exchange) -> None:
    await exchange.head(200, "application/json", content_length="1000000000")
    await for_ever(lambda: exchange.send(b" "))


@pytest.fixture
def later(server, asker):
    """Waits until another client has lost its patience: far longer than the `timeout_s` of 0.05 s below."""

    async def wait() -> None:
        server.scripts.appendleft(silent)
        with pytest.raises(TimedOutError, match=r"within 0\.4 s; see answer_timeout_s"):
            await asker(answer_timeout_s=0.4).chat("m", "q")

    return wait


async def test_timeout_s_is_not_for_an_answer_that_is_being_made(server, asker, answering, later) -> None:
    async def slow(exchange) -> None:
        await later()
        await answering("thought over")(exchange)

    server.then(slow, slow)
    client = asker(timeout_s=0.05)
    assert (await client.chat("m", "q")).text == "thought over"
    assert (await client.chat("m", "q", hints=Hints(deadline_s=60))).text == "thought over"


async def test_nor_for_the_first_piece_of_a_stream_whose_headers_came_at_once(server, asker, later) -> None:
    async def slow(exchange) -> None:
        await exchange.head()
        await later()
        await exchange.text("thought over", "stop")
        await exchange.event("[DONE]")
        await exchange.end()

    server.then(slow, slow)
    client = asker(timeout_s=0.05)
    for hints in (Hints(), Hints(deadline_s=60)):
        answer = await client.pieces(client.client.stream_chat("m", "q", hints=hints), [])
        assert answer.text == "thought over"


async def test_comments_do_not_stretch_the_deadline_of_a_stream(server, asker) -> None:
    server.then(pinging, pinging)
    client = asker(clock=monotonic, answer_timeout_s=0.1)
    async with asyncio.timeout(10):
        with pytest.raises(TimedOutError, match=r"the deadline of 0\.1 s is over"):
            await client.pieces(client.client.stream_chat("m", "q", hints=Hints(deadline_s=0.1)), [])
        with pytest.raises(TimedOutError, match=r"within 0\.1 s; see answer_timeout_s"):
            await client.pieces(client.client.stream_chat("m", "q"), [])
    assert len(server.asked) == 2


async def test_nor_does_an_answer_that_comes_byte_by_byte(server, asker) -> None:
    server.then(dribbling)
    async with asyncio.timeout(10):
        with pytest.raises(TimedOutError, match=r"the deadline of 0\.1 s is over"):
            await asker(clock=monotonic).chat("m", "q", hints=Hints(deadline_s=0.1))


async def test_a_server_that_is_too_slow_for_the_deadline(server, asker, answering) -> None:
    server.always = silent
    client = asker()
    with pytest.raises(TimedOutError, match=r"the deadline of 0\.05 s is over"):
        await client.chat("m", "q", hints=Hints(deadline_s=0.05))
    with pytest.raises(TimedOutError, match="the deadline of"):
        await client.pieces(client.client.stream_chat("m", "q", hints=Hints(deadline_s=0.05)), [])
    server.always = answering("ready")
    assert (await client.chat("m", "q")).text == "ready"


async def test_a_client_that_blocks_has_one_deadline_for_all_steps(server) -> None:
    """Each of httpx's timeouts is for one step: reading gets what connecting has left."""
    server.then(silent)
    first = iter([0.0] * 5)  # the call, its attempt, its connection; and then time jumps
    clock = lambda: next(first, 599.95)  # noqa: E731
    over = pytest.raises(TimedOutError, match="the deadline of 600 s is over")
    with Client(server.url, timeout_s=900, deadline_s=600, clock=clock) as client, over:
        await asyncio.to_thread(client.chat, "m", "q")


def test_no_connection_within_timeout_s_is_not_the_deadline() -> None:
    """Each look at the clock takes 0.01 s: when connecting fails, less than `timeout_s` is left."""
    ticks = count()
    with socket() as full, socket() as first, socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # holds one connection that nobody accepts; Linux lets one more in
        for taken in (first, second):
            taken.setblocking(False)
            taken.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        clock = lambda: next(ticks) / 100  # noqa: E731
        with (
            Client(url, timeout_s=0.065, deadline_s=0.1, max_retries=0, clock=clock) as client,
            pytest.raises(UnreachableError, match="no connection: timed out"),
        ):
            client.chat("m", "q")


async def test_a_server_that_says_nothing(server, asker) -> None:
    """Its silence is no reason to ask again: the server may be at work on it."""
    server.then(silent)
    with pytest.raises(TimedOutError, match=r"no answer began within 0\.5 s; see answer_timeout_s"):
        await asker(answer_timeout_s=0.5).chat("m", "q")
    assert len(server.asked) == 1


async def test_a_server_that_lists_no_models(server, asker) -> None:
    """What is only looked up is there within `timeout_s`."""
    server.then(silent)
    client = asker(timeout_s=0.5)
    with pytest.raises(TimedOutError, match=r"within 0\.5 s; see timeout_s"):
        await client.call(client.client.models)
