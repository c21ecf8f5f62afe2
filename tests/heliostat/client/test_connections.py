"""A connection breaks, or nothing comes over it, before there is an answer; over real sockets."""

import asyncio

import pytest

from heliostat import AsyncClient, Client, HeliostatError, UnreachableError


async def dropped(exchange) -> None:
    exchange.drop()


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
async def test_a_client_that_is_closed_says_so(server, kind) -> None:
    client = kind(server.url)
    closed = client.close()
    if kind is AsyncClient:
        await closed
    with pytest.raises(HeliostatError, match="a client that is closed"):
        await client.chat("m", "q") if kind is AsyncClient else client.chat("m", "q")
    assert server.asked == []
