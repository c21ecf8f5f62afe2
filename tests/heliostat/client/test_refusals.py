"""A server says no, or something that is no answer; over real sockets."""

import asyncio
import pickle

import pytest

from heliostat import (
    AsyncClient,
    Hints,
    InvalidRequestError,
    OtherStatusError,
    OverloadedError,
    PoolUnavailableError,
    RequestError,
    UnexpectedAnswerError,
    UnknownModelError,
)

PAGE = "<html>\n<body><h1>It works!</h1></body></html>"


async def dropped(exchange) -> None:
    exchange.drop()


def refusing(status: int, body: object, **headers: str):
    async def script(exchange) -> None:
        await exchange.answer(body, status, **headers)

    return script


def overloaded(retry_after: str):
    return refusing(429, {"error": {"message": "full", "code": 429}}, retry_after=retry_after)


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


@pytest.mark.parametrize(
    ("status", "kind", "says", "attempts"),
    [
        (200, UnexpectedAnswerError, "It works", 1),
        (302, UnexpectedAnswerError, "302 Found", 1),
        (404, UnexpectedAnswerError, "is base_url the server's root", 1),
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


@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidRequestError), (422, InvalidRequestError), (403, OtherStatusError)]
)
async def test_an_error_keeps_what_callers_branch_on(server, asker, status, kind) -> None:
    details = {"type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
    server.then(refusing(status, {"error": {"message": "too long", **details}}))
    with pytest.raises(kind, match=r"^too long$") as caught:
        await asker().chat("m", "q")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.status, error.kind, error.param, error.code) == (status, *details.values())


async def test_a_code_that_repeats_the_status_is_none(server, asker) -> None:
    server.then(refusing(400, {"error": {"message": "wrong", "type": None, "param": None, "code": 400}}))
    with pytest.raises(InvalidRequestError) as caught:
        await asker().chat("m", "q")
    assert (caught.value.kind, caught.value.param, caught.value.code) == ("", "", "")


@pytest.mark.parametrize("status", [408, 502, 504])
async def test_any_status_that_is_tried_again_says_when(server, asker, status) -> None:
    server.then(refusing(status, {"error": {"message": "later"}}, retry_after="7"))
    with pytest.raises(OtherStatusError) as caught:
        await asker(max_retries=0).chat("m", "q")
    assert caught.value.retry_after_s == 7


async def test_a_page_that_is_not_there_is_no_model(server, asker) -> None:
    """What FastAPI says of `/status`, which only a Heliostat has."""
    server.then(refusing(404, {"detail": "Not Found"}))
    client = asker()
    with pytest.raises(UnexpectedAnswerError, match="/status answered 404"):
        await client.call(client.client.status)
