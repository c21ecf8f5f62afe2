"""Our own client against a cluster: who leaves frees a slot, who is refused waits, and no token is lost."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import psutil
import pytest

from heliostat import AsyncClient, AsyncStream, Hints, OverloadedError, TimedOutError
from heliostat.wire import Role

pytestmark = pytest.mark.sim

IDS = {"temperature": 0, "extra_body": {"return_token_ids": True}}
LONG = 1900


def prompt(seed: object, length: int = 40) -> list[int]:
    rng = random.Random(f"sdk-{seed}")
    return [rng.randint(60, 90) for _ in range(length)]


@pytest.fixture
async def sdk(sim_cluster) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(sim_cluster.url) as client:
        yield client


@pytest.fixture
async def full(sim_cluster) -> AsyncIterator[list[AsyncStream]]:
    """Streams that take both places of `limited`: each of the two routers grants one."""
    async with AsyncExitStack() as stack, AsyncClient(sim_cluster.url, max_retries=0) as client:
        held: list[AsyncStream] = []
        async with asyncio.timeout(30):
            while len(held) < 2:
                stream = client.stream_complete("limited", prompt("full"), max_tokens=LONG)
                try:
                    held.append(await stack.enter_async_context(stream))
                except OverloadedError as error:
                    assert error.retry_after_s >= 1
        yield held


async def nothing_runs(sim) -> bool:
    now = [replica for pool in (await sim.status()).pools for replica in pool.replicas]
    return all(r.running + r.waiting + r.queued_prompt_tokens == 0 and r.kv_use == 0 for r in now)


async def test_who_leaves_early_frees_the_slot(sim, sdk, full) -> None:
    """One leaves its stream, one is cancelled while it reads."""
    first, second = full
    reading = asyncio.create_task(second.read())
    await anext(first)
    await first.__aexit__(None, None, None)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await second.__aexit__(None, None, None)
    await sim.until(lambda: nothing_runs(sim))
    answer = await sdk.complete("limited", prompt("after"), max_tokens=10, **IDS)
    assert list(answer.choices[0].token_ids) == sim.expected("limited", prompt("after"), 10)


async def test_a_cancelled_call_frees_the_slot(sim, sdk) -> None:
    task = asyncio.create_task(sdk.complete("slow", prompt("cancel"), max_tokens=LONG))

    async def runs() -> bool:
        return any(replica.running for replica in await sim.replicas(Role.DECODE, "slow"))

    await sim.until(runs)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sim.until(lambda: nothing_runs(sim))


async def test_who_is_refused_comes_back_when_the_server_says(sim, sim_cluster, full) -> None:
    """Waiting takes no time here: it frees a place, and the next attempts find it."""
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if full:
            await full.pop().__aexit__(None, None, None)

    async with AsyncClient(sim_cluster.url, max_retries=1000, sleep=wait) as client:
        answer = await client.complete("limited", prompt("waits"), max_tokens=10, **IDS)
    assert list(answer.choices[0].token_ids) == sim.expected("limited", prompt("waits"), 10)
    assert waits and min(waits) >= 1, "never before Retry-After"


async def test_a_deadline_ends_the_wait_here_or_there(sim_cluster, sdk, full) -> None:
    """At a full model's door the server refuses at once, and what it says to wait is beyond the deadline."""
    with pytest.raises((OverloadedError, TimedOutError)):
        while True:  # a place that a stream of `full` leaves at its end would serve one of these
            await sdk.complete("limited", prompt("late"), max_tokens=LONG, hints=Hints(deadline_s=0.5))


async def test_a_decode_replica_that_dies_in_mid_stream_is_not_seen(sim, sdk) -> None:
    num_tokens, prompts = 600, [prompt(n) for n in range(16)]
    here = asyncio.Barrier(len(prompts) + 1)

    async def ask(ids: list[int]) -> tuple[int, ...]:
        async with sdk.stream_complete("home", ids, max_tokens=num_tokens, **IDS) as stream:
            await anext(stream)
            await here.wait()
            return (await stream.read()).choices[0].token_ids

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(ids)) for ids in prompts]
        await here.wait()
        victim = max(await sim.replicas(Role.DECODE, "base"), key=lambda replica: replica.running)
        assert victim.running
        psutil.Process(victim.pid).kill()
    answers = [list(task.result()) for task in asked]
    assert answers == [sim.expected("home", ids, num_tokens) for ids in prompts]

    async def back() -> bool:
        return len(await sim.replicas(Role.DECODE, "base")) == 2

    await sim.until(back)


async def test_a_context_is_asked_of_two_models(sim, sdk) -> None:
    async with sdk.context(system="s" * 100, documents=["d" * 200]) as context:
        answers = await context.ask_all({"home": "one", "mirror": "two"}, max_tokens=5, temperature=0)
        again = await context.ask("home", "three", max_tokens=5, temperature=0)
    assert set(answers) == {"home", "mirror"}
    assert answers["home"].served_by.decode.startswith("decode-base#")
    assert again.usage.cached_tokens >= 256, "the context was there already"
    assert context.usage.requests == 3
    assert context.usage.by_model["home"].cached_tokens >= 256


async def test_models_and_status(sim, sdk) -> None:
    assert {"home", "mirror", "limited"} <= {card.id for card in await sdk.models()}
    assert (await sdk.status()).ready
