"""Pools grow under load, on several nodes, and shrink to their floor after it; one goes to zero and back.

Sizes are waited for and never expected at a time. No request is lost, and every answer is exact.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from heliostat.wire import Role

pytestmark = pytest.mark.nodes

SPEC = Path(__file__).parent / "autoscaling.yaml"
CHANGE_S = 180
CLIENTS = 24

HOME, MIRROR, BASE = (Role.PREFILL, "home"), (Role.PREFILL, "mirror"), (Role.DECODE, "base")


@pytest.fixture
async def scaling(nodes) -> AsyncIterator:
    """Two replicas fit on each node, or one and the router."""
    async with nodes(SPEC) as running:
        yield running.sim


def prompt(seed: object) -> list[int]:
    rng = random.Random(f"autoscaling-{seed}")
    return [rng.randint(60, 90) for _ in range(600)]


async def sizes(sim) -> dict[tuple[Role, str], int]:
    return {(pool.role, pool.name): len(pool.replicas) for pool in (await sim.status()).pools}


async def test_pools_follow_their_load_and_lose_nothing(scaling) -> None:
    sim, floor = scaling, {HOME: 1, MIRROR: 0, BASE: 1}
    assert await sizes(sim) == floor
    assert (await sim.status()).ready, "a pool at its legitimate zero is no problem"

    grown, answered, seeds = asyncio.Event(), [], itertools.count()

    async def client() -> None:
        while not grown.is_set():
            ids = prompt(next(seeds))
            answer = await sim.post(model="home", prompt=ids, max_tokens=100)
            assert answer.status_code == httpx.codes.OK, answer.text
            assert answer.json()["choices"][0]["token_ids"] == sim.expected("home", ids, 100)
            answered.append(answer.headers["x-heliostat-prefill"])

    async def at(wanted: dict[tuple[Role, str], int]) -> bool:
        await asyncio.sleep(0.2)
        return await sizes(sim) == wanted

    async with asyncio.TaskGroup() as load:
        for _ in range(CLIENTS):
            load.create_task(client())
        await sim.until(lambda: at({HOME: 2, MIRROR: 0, BASE: 2}), CHANGE_S)
        replicas = [r for key in (HOME, BASE) for r in await sim.replicas(*key)]
        # The last streams outlast the load, and end on replicas that leave meanwhile.
        prompts = [prompt(f"long-{number}") for number in range(4)]
        streams = await asyncio.gather(
            *(sim.open(model="home", prompt=ids, max_tokens=1200) for ids in prompts)
        )
        grown.set()
    raylets = {psutil.Process(replica.pid).ppid() for replica in replicas}
    assert len(raylets) > 1, "the new replicas run on other nodes"
    assert len(answered) > CLIENTS

    for stream, ids in zip(await asyncio.gather(*(s.read() for s in streams)), prompts, strict=True):
        assert stream.done and not stream.broken and stream.error is None
        assert stream.tokens[0] == sim.expected("home", ids, 1200)
    await sim.until(lambda: at(floor), CHANGE_S)

    ids = prompt("first")
    first = await sim.http.post(
        "/v1/completions",
        json={"model": "mirror", "prompt": ids, "max_tokens": 20, "temperature": 0, "return_token_ids": True},
        timeout=CHANGE_S,
    )
    assert first.status_code == httpx.codes.OK, first.text
    assert first.json()["choices"][0]["token_ids"] == sim.expected("mirror", ids, 20)
    assert first.headers["x-heliostat-prefill"].startswith("prefill-mirror#")
    await sim.until(lambda: at(floor), CHANGE_S)
