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
    answer = await sim.post({"model": model, "prompt": PROMPT, "max_tokens": 10})
    assert answer.json()["choices"][0]["token_ids"] == sim.expected(model, PROMPT, 10)


async def test_a_model_at_its_limit_is_refused_and_no_other(sim) -> None:
    """Each of the two routers grants one; so two streams run once both are asked."""
    body = {"model": "limited", "prompt": PROMPT, "max_tokens": LONG}
    held = []
    async with asyncio.timeout(30):
        while len(held) < 2:
            stream = await sim.open(body)
            if stream.response.is_success:
                held.append(stream)
    for _ in range(4):
        answer = await sim.post(body)
        assert_refused(answer.status_code, answer.headers, answer.json())
        refused = (await sim.open(body)).response
        await refused.aread()
        assert_refused(refused.status_code, refused.headers, refused.json())
    await assert_served(sim, "home")
    for stream in held:
        await stream.read()
        assert stream.done and stream.tokens == {0: sim.expected("limited", PROMPT, LONG)}
    await assert_served(sim, "limited")


async def test_a_deadline_ends_the_wait_for_a_place(sim) -> None:
    """With each stream the pool gets fuller, until one finds no place in time."""
    deadline_s = 0.2
    held = []
    async with asyncio.timeout(60):
        while True:
            began = time.monotonic()
            stream = await sim.open(
                {"model": "narrow", "prompt": PROMPT, "max_tokens": LONG},
                headers={"x-heliostat-deadline": str(deadline_s)},
            )
            if not stream.response.is_success:
                break
            held.append(stream)
    assert time.monotonic() - began >= deadline_s
    await stream.response.aread()
    assert_refused(stream.response.status_code, stream.response.headers, stream.response.json())
    assert len(held) >= 2, "the pool runs two"
    patient = asyncio.create_task(assert_served(sim, "narrow"))
    await assert_served(sim, "home")
    for stream in held:
        await stream.response.aclose()
    await patient
