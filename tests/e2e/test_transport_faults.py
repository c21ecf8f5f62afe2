"""Whoever dies: each request ends with the right tokens or one honest error, and nothing is left behind.

A replica is killed with its engine, as a lost machine would be. Tests run in the order of the file, and a
test that needs all replicas waits until Serve has started them again.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable

import httpx
import psutil
import pytest

from heliostat.status import ClusterStatus, ReplicaStatus
from heliostat.wire import Role

pytestmark = [pytest.mark.transport, pytest.mark.timeout(1500)]

HONEST_S = 5.0
RESTART_S = 480.0
"""Four engines at once on a busy machine of two cores; one by itself takes twenty seconds."""
FIRST_LETTER, LAST_LETTER = 60, 90
MAX_TOKENS = 48


def prompt(length: int, seed: int) -> tuple[int, ...]:
    rng = random.Random(f"fault-{length}-{seed}")
    return tuple(rng.randint(FIRST_LETTER, LAST_LETTER) for _ in range(length))


@pytest.fixture
async def http(transport_cluster):
    async with httpx.AsyncClient(base_url=transport_cluster.url, timeout=60) as http:
        yield http


async def status(http: httpx.AsyncClient) -> ClusterStatus:
    return ClusterStatus.model_validate_json((await http.get("/status")).content)


async def replicas(http: httpx.AsyncClient, role: Role, pool: str = "base") -> list[ReplicaStatus]:
    pools = (await status(http)).pools
    return [r for p in pools if (p.role, p.name) == (role, pool) for r in p.replicas]


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            pass


class Killed:
    """A replica's process and those of its engine, killed all at once or by the kernel one after another."""

    def __init__(self, replica: ReplicaStatus) -> None:
        self.at_s = time.monotonic()
        process = psutil.Process(replica.pid)
        self._engine = process.children(recursive=True)
        process.kill()

    def gone(self) -> bool:
        _, alive = psutil.wait_procs(self._engine, timeout=HONEST_S)
        return not alive


def question(ids: tuple[int, ...], max_tokens: int = MAX_TOKENS, model: str = "base") -> dict[str, object]:
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }


class Burst:
    """Requests that are under way while something dies."""

    def __init__(
        self,
        cluster,
        http: httpx.AsyncClient,
        prompts: list[tuple[int, ...]],
        max_tokens: int = MAX_TOKENS,
        model: str = "base",
    ) -> None:
        self._cluster = cluster
        self._model = model
        self._prompts = prompts
        self._max_tokens = max_tokens
        self._ends: dict[int, float] = {}
        self.errors: list[str] = []
        self.tasks = [asyncio.create_task(self._one(http, index)) for index in range(len(prompts))]

    async def _one(self, http: httpx.AsyncClient, index: int) -> httpx.Response:
        try:
            body = question(self._prompts[index], self._max_tokens, self._model)
            return await http.post("/v1/completions", json=body)
        finally:
            self._ends[index] = time.monotonic()

    async def ended_well_or_honestly(self, killed_at_s: float) -> int:
        """How many were right; every other one has one error object, and came in time."""
        answers = await asyncio.gather(*self.tasks)
        right = 0
        for index, answer in enumerate(answers):
            if answer.status_code == httpx.codes.OK:
                expected = self._cluster.reference(self._model, self._prompts[index], self._max_tokens)
                assert answer.json()["choices"][0]["token_ids"] == expected
                right += 1
            else:
                self.errors.append(answer.text)
                assert answer.status_code in (500, 503), answer.text
                assert answer.json()["error"]["message"]
                assert self._ends[index] - killed_at_s < HONEST_S, answer.text
        return right


def idle_replica(replica: ReplicaStatus) -> bool:
    return replica.running + replica.waiting + replica.queued_prompt_tokens == 0 and replica.kv_use == 0


async def survivors_idle(http: httpx.AsyncClient) -> None:
    """Whoever lives holds no KV of the requests that are over."""

    async def idle() -> bool:
        return all(idle_replica(r) for p in (await status(http)).pools for r in p.replicas)

    await until(idle, HONEST_S)


async def back_to_idle(cluster, http: httpx.AsyncClient) -> None:
    """All replicas are there again, none holds KV, and no segment or dead owner's folder is left."""
    wanted = {key: pool.replicas.min for key, pool in cluster.spec.pools().items()}
    # One folder for each replica's engine, one more for each store.
    folders = sum(wanted.values()) + sum(n for (role, _), n in wanted.items() if role is Role.PREFILL)

    async def idle() -> bool:
        now = await status(http)
        there = {(p.role, p.name): len(p.replicas) for p in now.pools}
        all_replicas = [r for p in now.pools for r in p.replicas]
        left = os.listdir(cluster.spec.transfer.directory)
        # `ready` is what the router's last beat found, and it goes by that; the replicas were asked just now.
        return (
            now.ready
            and there == wanted
            and all(idle_replica(replica) for replica in all_replicas)
            and not [name for name in left if name.endswith(".kv")]
            and len(left) == folders
        )

    await until(idle, RESTART_S)


async def test_a_lease_that_runs_out_is_repaired_by_a_fresh_ticket(transport_cluster, http) -> None:
    """A decode engine stands still for longer than a lease, and the stores run full meanwhile.

    Its pool has room for all requests, so the router lets them in.

    Two of three prompts fit into a store; the third waits for the room that the leases give back.
    """
    engines = [
        process
        for replica in await replicas(http, Role.DECODE, "spell")
        for process in psutil.Process(replica.pid).children(recursive=True)
        if "EngineCore" in " ".join(process.cmdline())
    ]
    assert len(engines) == 1

    async def counts() -> tuple[int, int]:
        figures = [f for r in await replicas(http, Role.PREFILL) for f in r.handoffs]
        return sum(f.expired for f in figures), sum(f.failures.get("no_space", 0) for f in figures)

    expired, full = await counts()
    for process in engines:
        process.send_signal(signal.SIGSTOP)
    try:
        prompts = [prompt(1500, seed) for seed in range(6)]
        burst = Burst(transport_cluster, http, prompts, model="spell")

        async def full_and_expired() -> bool:
            now_expired, now_full = await counts()
            return now_expired > expired and now_full > full

        await until(full_and_expired, 4 * transport_cluster.spec.transfer.lease_s + HONEST_S)
    finally:
        for process in engines:
            process.send_signal(signal.SIGCONT)
    assert await burst.ended_well_or_honestly(time.monotonic()) > 0
    await survivors_idle(http)


async def test_a_prefill_replica_that_died_before_the_request(transport_cluster, http) -> None:
    killed = Killed((await replicas(http, Role.PREFILL))[0])
    burst = Burst(transport_cluster, http, [prompt(200, seed) for seed in range(6)])
    assert await burst.ended_well_or_honestly(killed.at_s) > 0, "the other replica is there"
    assert killed.gone()
    await survivors_idle(http)


class Streams:
    """Streams that are under way while something dies; `tokens` is what each client has so far."""

    def __init__(self, http: httpx.AsyncClient, prompts: list[tuple[int, ...]], max_tokens: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.replicas: list[str] = ["" for _ in prompts]
        self.all_begun = asyncio.Event()
        self._bodies = [{**question(ids, max_tokens), "stream": True} for ids in prompts]
        self.tasks = [asyncio.create_task(self._one(http, index)) for index in range(len(prompts))]

    async def _one(self, http: httpx.AsyncClient, index: int) -> None:
        async with http.stream("POST", "/v1/completions", json=self._bodies[index]) as answer:
            assert answer.status_code == httpx.codes.OK, await answer.aread()
            self.replicas[index] = answer.headers["x-heliostat-decode"]
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                self.tokens[index] += event["choices"][0]["token_ids"] or []
                if all(self.tokens):
                    self.all_begun.set()


def not_over_nccl(cluster) -> None:
    """nccl keeps KV in the store of nixl (`kvtransfer.memory_store`): what readers and restarts do to it is
    shown once. How the death of an owner is noticed is each transport's own, and shown over all."""
    if cluster.spec.transfer.transport == "nccl":
        pytest.skip("shown over nixl, whose store this is")


async def test_a_decode_replica_that_dies_in_mid_stream(transport_cluster, http) -> None:
    """Rule 6: another replica carries on with every stream; no client sees a gap or a repeated token."""
    not_over_nccl(transport_cluster)
    prompts = [prompt(60, seed) for seed in range(16)]
    streams = Streams(http, prompts, 200)
    async with asyncio.timeout(60):
        await streams.all_begun.wait()
    busy = max(await replicas(http, Role.DECODE), key=lambda replica: streams.replicas.count(replica.name))
    unfinished = sum(len(tokens) < 200 for tokens in streams.tokens)
    killed = Killed(busy)
    assert unfinished > 8, "too late to show anything"
    await asyncio.gather(*streams.tasks)
    expected = [transport_cluster.reference("base", ids, 200) for ids in prompts]
    assert streams.tokens == expected
    assert killed.gone()
    await survivors_idle(http)
    await back_to_idle(transport_cluster, http)


async def test_all_decode_replicas_gone(transport_cluster, http) -> None:
    """503 for whoever comes meanwhile, and service again without anybody's help."""
    if transport_cluster.spec.transfer.transport != "shm":
        pytest.skip("a matter of the router: one transport shows it")
    killed = [Killed(replica) for replica in await replicas(http, Role.DECODE)]

    async def refused() -> bool:
        return (await http.post("/v1/completions", json=question(prompt(50, 1)))).status_code == 503

    await until(refused, HONEST_S)
    assert all(each.gone() for each in killed)
    await back_to_idle(transport_cluster, http)
    again = Burst(transport_cluster, http, [prompt(50, seed) for seed in range(4)])
    assert await again.ended_well_or_honestly(time.monotonic()) == 4, again.errors


async def test_a_prefill_replica_that_dies_during_one_prefill_and_after_another(
    transport_cluster, http
) -> None:
    """KV that has been read is out of its reach: that stream goes on as if nothing had happened."""
    await back_to_idle(transport_cluster, http)  # the burst needs the other replica
    ids = prompt(150, 1)
    body = {**question(ids, max_tokens=600), "stream": True}
    tokens: list[int] = []
    burst = killed = None
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        owner = answer.headers["x-heliostat-prefill"]

        async def owner_is_busy() -> bool:
            (replica,) = [r for r in await replicas(http, Role.PREFILL) if r.name == owner]
            return replica.queued_prompt_tokens > 0

        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            tokens += json.loads(line.removeprefix("data: "))["choices"][0]["token_ids"] or []
            if burst is None:
                burst = Burst(transport_cluster, http, [prompt(1900, seed) for seed in range(4)])
                await until(owner_is_busy, HONEST_S)
                (replica,) = [r for r in await replicas(http, Role.PREFILL) if r.name == owner]
                killed = Killed(replica)
    assert tokens == transport_cluster.reference("base", ids, 600)
    assert burst is not None and killed is not None
    assert await burst.ended_well_or_honestly(killed.at_s) > 0
    assert killed.gone()
    await survivors_idle(http)
    if transport_cluster.spec.transfer.transport == "nccl":
        # Its last test. A replica that is still loading ends only then, and Serve gives its pools a minute.
        await back_to_idle(transport_cluster, http)


async def test_both_sides_restarted(transport_cluster, http) -> None:
    not_over_nccl(transport_cluster)
    before = unused_segments()
    victims = [*await replicas(http, Role.PREFILL), *await replicas(http, Role.DECODE)]
    killed = [Killed(victim) for victim in victims]
    burst = Burst(transport_cluster, http, [prompt(200, seed) for seed in range(4)])
    await burst.ended_well_or_honestly(killed[-1].at_s)
    assert all(each.gone() for each in killed)
    await back_to_idle(transport_cluster, http)
    again = Burst(transport_cluster, http, [prompt(200, seed) for seed in range(4)])
    assert await again.ended_well_or_honestly(time.monotonic()) == 4, again.errors
    assert unused_segments() - before == set(), "shared memory of a killed engine"


def unused_segments() -> set[str]:
    """Shared memory of Python's multiprocessing that no process has mapped.

    Its named semaphores are not looked at: 32 bytes each, they are not mapped while they are in use.
    """
    names = {name for name in os.listdir("/dev/shm") if name.startswith("psm_")}
    for process in psutil.process_iter():
        try:
            names -= {os.path.basename(region.path) for region in process.memory_maps()}
        except psutil.Error:
            continue  # it ended, or is not ours
    return names
