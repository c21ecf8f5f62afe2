"""Pools grow under load, on several nodes, and shrink to their floor after it; one goes to zero and back.

Sizes are waited for and never expected at a time. No request is lost, and every answer is exact.
"""

import asyncio
import itertools
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from ray.cluster_utils import Cluster as RayCluster

from cluster.serve_environment import set_serve_environment
from heliostat.specfile import load_spec
from heliostat.wire import Role

pytestmark = pytest.mark.sim

SPEC = Path(__file__).parent / "autoscaling.yaml"
START_S, CHANGE_S = 180, 180
CLIENTS = 24
HOME, MIRROR, BASE = (Role.PREFILL, "home"), (Role.PREFILL, "mirror"), (Role.DECODE, "base")


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A Ray cluster of three nodes on this host; two replicas fit on each, or one and the router."""
    before = dict(os.environ)
    set_serve_environment()  # what Serve's processes on these nodes read
    nodes = RayCluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False},
    )
    for _ in range(2):
        nodes.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    yield nodes.address
    nodes.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
async def scaling(ray_address: str, serve_command, free_port, sim_client) -> AsyncIterator:
    port = free_port()
    server = serve_command(str(SPEC), "--ray", ray_address, "--port", str(port))
    try:
        await asyncio.to_thread(server.wait_for, "ready: http://", START_S)
        async with AsyncExitStack() as stack:
            yield await sim_client(f"http://127.0.0.1:{port}", load_spec(SPEC), stack)
        assert await asyncio.to_thread(server.interrupt) == 0, server.output
    finally:
        server.kill()


def prompt(seed: object) -> list[int]:
    rng = random.Random(f"autoscaling-{seed}")
    return [rng.randint(60, 90) for _ in range(600)]


async def sizes(sim) -> dict[tuple[Role, str], int]:
    return {(pool.role, pool.name): len(pool.replicas) for pool in (await sim.status()).pools}


async def test_pools_follow_their_load_and_lose_nothing(scaling) -> None:
    sim, floor = scaling, {HOME: 1, MIRROR: 0, BASE: 1}
    assert await sizes(sim) == floor
    ready = await sim.http.get("/ready")
    assert ready.status_code == httpx.codes.OK, "a pool at its legitimate zero is no problem"

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
