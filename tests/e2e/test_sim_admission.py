"""Limits hold before any byte of an answer: 429, when to come back, and nobody else notices."""

import asyncio
import time

import httpx
import pytest

pytestmark = pytest.mark.sim

PROMPT = list(range(60, 80))
LONG = 1900


def assert_refused(status: int, headers: httpx.Headers, body: dict[str, dict[str, object]]) -> None:
    assert status == httpx.codes.TOO_MANY_REQUESTS, body
    assert int(headers["retry-after"]) >= 1
    assert headers["content-type"] == "application/json"
    assert body["error"]["code"] == httpx.codes.TOO_MANY_REQUESTS
    assert body["error"]["message"]


async def assert_served(sim, model: str) -> None:
    answer = await sim.post(model=model, prompt=PROMPT, max_tokens=10)
    assert answer.json()["choices"][0]["token_ids"] == sim.expected(model, PROMPT, 10)


async def test_a_model_at_its_limit_is_refused_and_no_other(sim) -> None:
    """Each of the two routers grants one; so two streams run once both are asked."""
    body = {"model": "limited", "prompt": PROMPT, "max_tokens": LONG}
    held = []
    async with asyncio.timeout(30):
        while len(held) < 2:
            stream = await sim.open(**body)
            if stream.response.is_success:
                held.append(stream)
    for _ in range(4):
        answer = await sim.post(**body)
        assert_refused(answer.status_code, answer.headers, answer.json())
        refused = (await sim.open(**body)).response
        await refused.aread()
        assert_refused(refused.status_code, refused.headers, refused.json())
    await assert_served(sim, "home")
    for stream in held:
        await stream.response.aclose()

    async def served_again() -> bool:
        return (await sim.post(model="limited", prompt=PROMPT, max_tokens=10)).is_success

    await sim.until(served_again)


async def test_a_deadline_ends_the_wait_for_a_place(sim) -> None:
    """The pool runs two of them, and a few more may wait in its replica: routers cannot know to the last."""
    deadline_s = 0.2

    async def ask() -> tuple[httpx.Response, float]:
        began = time.monotonic()
        header = {"x-heliostat-deadline": str(deadline_s)}
        stream = await sim.open(header, model="narrow", prompt=PROMPT, max_tokens=LONG)
        return stream.response, time.monotonic() - began

    asked = {asyncio.create_task(ask()) for _ in range(8)}
    held = []
    for answer in asyncio.as_completed(asked):
        response, waited_s = await answer
        if not response.is_success:
            break
        held.append(response)
    await response.aread()
    assert_refused(response.status_code, response.headers, response.json())
    assert waited_s >= deadline_s
    patient = asyncio.create_task(assert_served(sim, "narrow"))
    await assert_served(sim, "home")
    for each in asked:
        each.cancel()
    for response in held:
        await response.aclose()
    await patient
