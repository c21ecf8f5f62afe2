"""Several models that are asked about one context at once: it is prefilled once, and the answers say so."""

import asyncio
import random
from secrets import token_hex

import httpx
import pytest
from openai import AsyncOpenAI, RateLimitError

from heliostat.wire import Role

pytestmark = pytest.mark.sim

MODELS = ("mirror", "twin", "triplet")
"""One prefill pool of two replicas, which compute 5,000 tokens a second; two routers."""

CONTEXT = 960
QUESTION = 40


def prompt(seed: str, length: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randint(60, 90) for _ in range(length)]


async def ask_at_once(sim, context: list[int], headers: dict[str, str]) -> list[httpx.Response]:
    """Every model twice, each time with a question of its own."""
    bodies = [
        {
            "model": model,
            "prompt": context + prompt(f"{model} {turn} {context}", QUESTION),
            "max_tokens": 5,
            "temperature": 0,
            "return_token_ids": True,
        }
        for model in MODELS
        for turn in range(2)
    ]
    answers = await asyncio.gather(
        *(sim.http.post("/v1/completions", json=body, headers=headers) for body in bodies)
    )
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.is_success, answer.text
        assert answer.json()["choices"][0]["token_ids"] == sim.expected(body["model"], body["prompt"], 5)
    return answers


def count(answers: list[httpx.Response], name: str) -> list[int]:
    return [int(answer.headers[f"x-heliostat-{name}"]) for answer in answers]


async def test_a_context_is_prefilled_once_for_all_models_that_ask_at_once(sim) -> None:
    """Without a session, some of six requests at once would always go to the other replica.

    The two routers may have seen the replicas at different moments, one of them still at work on the context
    before; then either has the context computed where it sees less to do. So not always once, but never more
    often than there are routers.
    """
    assert len(await sim.replicas(Role.PREFILL, "mirror")) == 2
    computed = []
    for number in range(5):
        answers = await ask_at_once(
            sim, prompt(f"once {number}", CONTEXT), {"x-heliostat-session": f"ctx-{number}"}
        )
        computed.append(len({answer.headers["x-heliostat-prefill"] for answer in answers}))
        cached = count(answers, "cached-tokens")
        assert sorted(cached)[computed[-1] :] == [CONTEXT] * (len(answers) - computed[-1])
    assert min(computed) == 1


async def test_contexts_spread_over_the_pool(sim) -> None:
    """By their names, as long as no replica has more to do than the others."""
    homes = set()
    for number in range(16):
        answers = await ask_at_once(
            sim, prompt(f"spread {number}", 64), {"x-heliostat-session": f"spread-{number}"}
        )
        homes |= {answer.headers["x-heliostat-prefill"] for answer in answers}
    assert len(homes) == 2


async def test_what_another_model_brought_is_told(sim) -> None:
    """By the replica, so it does not matter which of the two routers the models' requests came through."""
    seed = token_hex(8)  # nobody has asked with it before, also where the cluster has been up for long
    context, headers = prompt(seed, CONTEXT), {"x-heliostat-session": seed}
    answers = [answer for _ in range(2) for answer in await ask_at_once(sim, context, headers)]
    asked = [model for _ in range(2) for model in MODELS for _ in range(2)]
    homes = [answer.headers["x-heliostat-prefill"] for answer in answers]
    cached, cross_model = count(answers, "cached-tokens"), count(answers, "cross-model-tokens")
    # On each replica, the model of the one answer whose context was computed. Questions come twice.
    brought = {home: model for home, model, tokens in zip(homes, asked, cached, strict=True) if not tokens}
    assert cached.count(0) == len(brought)
    assert cross_model == [
        min(tokens, CONTEXT) * (model != brought[home])
        for home, model, tokens in zip(homes, asked, cached, strict=True)
    ]
    saved = [float(answer.headers.get("x-heliostat-saved-ms", 0)) for answer in answers]
    assert max(saved) > 0, "at the rate that was measured, which is lower on a busy machine"


async def test_hints_are_taken_and_malformed_ones_refused(sim) -> None:
    ids = prompt("hints", 40)
    hints = {"priority": "-2", "expected-tokens": "5", "reuse": "soon", "deadline": "30", "session": "s"}
    headers = {f"x-heliostat-{name}": value for name, value in hints.items()}
    stream = await sim.open(headers, model="home", prompt=ids, max_tokens=5)
    await stream.read()
    assert stream.tokens == {0: sim.expected("home", ids, 5)}
    refused = await sim.open({"x-heliostat-reuse": "never"}, model="home", prompt=ids, max_tokens=5)
    await refused.response.aread()
    assert refused.response.status_code == httpx.codes.BAD_REQUEST
    assert "x-heliostat-reuse is 'never'" in refused.response.json()["error"]["message"]


async def test_the_clients_rate_limit_error_says_when_to_come_back(sim) -> None:
    """Of `limited`, each of the two routers serves one at a time and lets none wait."""
    async with AsyncOpenAI(base_url=f"{sim.cluster.url}/v1", api_key="none", max_retries=0) as client:
        asked = {"model": "limited", "prompt": prompt("limit", 20), "max_tokens": 400}
        answers = await asyncio.gather(
            *(client.completions.create(**asked) for _ in range(8)), return_exceptions=True
        )
    refused = [answer for answer in answers if isinstance(answer, RateLimitError)]
    assert 0 < len(refused) < 8
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} == {RateLimitError}
    for error in refused:
        assert error.status_code == httpx.codes.TOO_MANY_REQUESTS
        assert int(error.response.headers["retry-after"]) >= 1
