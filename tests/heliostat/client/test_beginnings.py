"""A stream that fails before its first piece is asked for again, whenever its headers came: real sockets."""

import pytest

from heliostat import OverloadedError, RequestError, UnreachableError


async def drops(exchange) -> None:
    await exchange.head()
    exchange.drop()


async def drops_after_the_role(exchange) -> None:
    await exchange.head()
    await exchange.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    exchange.drop()


async def ends(exchange) -> None:
    await exchange.head()
    await exchange.end()


def says(code: int):
    async def script(exchange) -> None:
        await exchange.head()
        await exchange.event({"error": {"message": "not now", "code": code}})
        await exchange.event("[DONE]")
        await exchange.end()

    return script


async def answers(exchange) -> None:
    await exchange.head()
    await exchange.text("at ")
    await exchange.text("last", "stop")
    await exchange.event("[DONE]")
    await exchange.end()


@pytest.mark.parametrize("fails", [drops, drops_after_the_role, ends, says(503), says(429)])
async def test_before_the_first_piece_it_is_asked_for_again(server, asker, time, fails) -> None:
    server.then(fails, fails, answers)
    client, pieces = asker(), []
    answer = await client.pieces(client.client.stream_chat("m", "q"), pieces)
    assert [piece.text for piece in pieces] == ["at ", "last"]
    assert answer.text == "at last"
    assert len(server.asked) == 3 and time.slept == [0.375, 0.75]


@pytest.mark.parametrize(
    ("fails", "kind", "attempts"),
    [
        (drops, UnreachableError, 3),
        (ends, UnreachableError, 3),
        (says(429), OverloadedError, 3),
        (says(500), RequestError, 1),
    ],
)
async def test_it_is_given_up_as_any_other_request_is(server, asker, fails, kind, attempts) -> None:
    server.always = fails
    client, pieces = asker(), []
    with pytest.raises(kind):
        await client.pieces(client.client.stream_chat("m", "q"), pieces)
    assert pieces == [] and len(server.asked) == attempts


async def test_an_error_in_the_same_bytes_as_a_piece_costs_no_piece(server, asker) -> None:
    async def fails(exchange) -> None:
        await exchange.head()
        piece = b'data: {"choices": [{"delta": {"content": "so far"}}]}\n\n'
        await exchange.chunk(piece + b'data: {"error": {"message": "not now", "code": 503}}\n\n')
        await exchange.end()

    server.then(fails)
    client, pieces = asker(), []
    with pytest.raises(RequestError, match="not now"):
        await client.pieces(client.client.stream_chat("m", "q"), pieces)
    assert [piece.text for piece in pieces] == ["so far"]
    assert len(server.asked) == 1, "it had begun"


async def test_a_stream_without_a_piece_is_an_answer(server, asker) -> None:
    async def nothing(exchange) -> None:
        await exchange.head()
        await exchange.event("[DONE]")
        await exchange.end()

    server.then(nothing)
    client = asker()
    assert (await client.pieces(client.client.stream_chat("m", "q"), [])).text == ""
