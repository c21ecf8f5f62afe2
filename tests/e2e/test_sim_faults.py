"""Whoever dies or stalls: answers are whole and right, or end with an error that nobody can overlook.

Tests run in the order of the file. Processes are killed by their id; Serve starts them again.
"""

import asyncio
import itertools
import random

import httpx
import psutil
import pytest

from heliostat.status import ReplicaStatus
from heliostat.wire import Role

pytestmark = pytest.mark.sim

ROUTER = "ray::ServeReplica:heliostat:router"


def prompt(seed: object, length: int = 40) -> list[int]:
    rng = random.Random(f"fault-{seed}")
    return [rng.randint(60, 90) for _ in range(length)]


def kill(replica: ReplicaStatus) -> None:
    psutil.Process(replica.pid).kill()


def whole(sim, stream, model: str, ids: list[int], num_tokens: int) -> bool:
    """Finished, with all tokens and no other."""
    assert stream.tokens == {0: sim.expected(model, ids, num_tokens)}
    return stream.done and stream.finished == {0} and not (stream.error or stream.broken)


async def there(sim) -> bool:
    """Every pool has all its replicas, and the router knows."""
    status = await sim.status()
    counts = {(pool.role, pool.name): len(pool.replicas) for pool in status.pools}
    return status.ready and counts == {key: p.replicas.min for key, p in sim.cluster.spec.pools().items()}


async def routers(sim) -> list[psutil.Process]:
    """Siblings of any replica, for Ray's daemon is the parent of them all."""
    (replica, *_) = await sim.replicas(Role.DECODE, "narrow")
    return [
        p
        for p in psutil.Process(replica.pid).parent().children()
        if p.name().startswith(ROUTER[:15]) and ROUTER in " ".join(p.cmdline())
    ]


async def test_a_decode_replica_that_dies_with_16_streams_open(sim) -> None:
    num_tokens, prompts = 600, [prompt(n) for n in range(16)]
    streams = await asyncio.gather(
        *(sim.open(model="home", prompt=ids, max_tokens=num_tokens) for ids in prompts)
    )
    victim = max(await sim.replicas(Role.DECODE, "base"), key=lambda replica: replica.running)
    assert victim.running
    kill(victim)
    await asyncio.gather(*(stream.read() for stream in streams))
    assert all(whole(sim, s, "home", ids, num_tokens) for s, ids in zip(streams, prompts, strict=True))
    assert victim.name in {stream.response.headers["x-heliostat-decode"] for stream in streams}


async def test_a_prefill_replica_that_dies_while_it_computes(sim) -> None:
    prompts = [prompt(n, length=1000) for n in range(10)]
    asked = [asyncio.create_task(sim.post(model="mirror", prompt=ids, max_tokens=20)) for ids in prompts]
    busy: list[ReplicaStatus] = []

    async def one_computes() -> bool:
        busy[:] = [r for r in await sim.replicas(Role.PREFILL, "mirror") if r.running]
        return bool(busy)

    await sim.until(one_computes)
    kill(busy[0])
    for answer, ids in zip(await asyncio.gather(*asked), prompts, strict=True):
        assert answer.json()["choices"][0]["token_ids"] == sim.expected("mirror", ids, 20)
        assert answer.headers["x-heliostat-prefill"]


async def test_killed_replicas_come_back_and_work(sim) -> None:
    await sim.until(lambda: there(sim))
    idle = {r.name for r in await sim.replicas(Role.DECODE, "base")}
    idle |= {r.name for r in await sim.replicas(Role.PREFILL, "mirror")}

    seeds = itertools.count()

    async def all_worked() -> bool:
        prompts = [prompt(f"back-{next(seeds)}") for _ in range(16)]
        for answer in await asyncio.gather(
            *(sim.post(model="mirror", prompt=ids, max_tokens=20) for ids in prompts)
        ):
            assert answer.is_success, answer.text
            idle.difference_update(
                (answer.headers["x-heliostat-prefill"], answer.headers["x-heliostat-decode"])
            )
        return not idle

    await sim.until(all_worked)


async def test_no_decode_replica_is_a_503_until_one_is_there(sim) -> None:
    for replica in await sim.replicas(Role.DECODE, "base"):
        kill(replica)
    statuses = []

    async def served_again() -> bool:
        async with asyncio.timeout(10):
            answer = await sim.post(model="home", prompt=prompt("none"), max_tokens=5)
        statuses.append(answer.status_code)
        return answer.is_success

    await sim.until(served_again)
    assert set(statuses) == {503, 200}
    await sim.until(lambda: there(sim))


async def test_a_router_that_dies_breaks_its_streams_and_no_others(sim) -> None:
    num_tokens, prompts = 600, [prompt(n) for n in range(16)]
    streams = await asyncio.gather(
        *(sim.open(model="home", prompt=ids, max_tokens=num_tokens) for ids in prompts)
    )
    before = await routers(sim)
    assert len(before) == 2
    before[0].kill()
    await asyncio.gather(*(stream.read() for stream in streams))
    broken = [stream for stream in streams if stream.broken]
    assert 0 < len(broken) < len(streams)
    for stream, ids in zip(streams, prompts, strict=True):
        if stream.broken:
            assert not stream.done and not stream.finished
        else:
            assert whole(sim, stream, "home", ids, num_tokens)
    for ids in prompts:
        answer = await sim.post(model="home", prompt=ids, max_tokens=5)
        assert answer.is_success, answer.text

    # Of `limited` each router serves one at a time: both serve again when two are served.
    async def both_serve() -> bool:
        streams = await asyncio.gather(
            *(sim.open(model="limited", prompt=prompt("both"), max_tokens=500) for _ in range(4))
        )
        for stream in streams:
            await stream.response.aclose()
        return sum(stream.response.is_success for stream in streams) == 2

    await sim.until(both_serve, 120)


async def test_a_stalled_replica_is_replaced_and_a_stalled_pool_is_an_error(sim) -> None:
    """Each of two replicas gives 40 tokens, then none: enough for one answer, and a part of another."""
    ids = prompt("stall")
    body = {"model": "stalled", "prompt": ids, "max_tokens": 60}
    first = await (await sim.open(**body)).read()
    assert whole(sim, first, "stalled", ids, 60)
    second = await (await sim.open(**body)).read()
    assert second.response.status_code in (httpx.codes.OK, httpx.codes.INTERNAL_SERVER_ERROR)
    assert second.error and not second.finished
    assert second.tokens[0] == sim.expected("stalled", ids, 60)[: len(second.tokens[0])]
