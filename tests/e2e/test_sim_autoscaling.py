"""Pools grow under load, on several nodes, and shrink to their floor after it; one goes to zero and back.

Sizes are waited for and never expected at a time. No request is lost, and every answer is exact.
"""

import asyncio
import itertools
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from ray.cluster_utils import Cluster as RayCluster

from cluster.serve_environment import set_serve_environment
from heliostat.specfile import load_spec
from heliostat.wire import Role

pytestmark = pytest.mark.nodes

SPEC = Path(__file__).parent / "autoscaling.yaml"
START_S, CHANGE_S = 180, 180
CLIENTS = 24
LOOPBACK = "127.0.0.2"
"""A driver that is told 127.0.0.1 goes to the host's own address instead (Ray 2.60)."""

HOME, MIRROR, BASE = (Role.PREFILL, "home"), (Role.PREFILL, "mirror"), (Role.DECODE, "base")


SERVE = """
import faulthandler, sys
faulthandler.dump_traceback_later(120, exit=True)  # a start that hangs says where
from pathlib import Path
import ray
from ray import serve
from deployments.app import ROUTE_PREFIX, build_applications
from deployments.names import APP_NAME
from heliostat.specfile import load_spec

ray.init(address=sys.argv[1], namespace="serve", logging_level="ERROR", log_to_driver=False)
# On one host, proxies of several nodes would want the same port.
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run_many(
    [
        serve.RunTarget(application, name=name, route_prefix=ROUTE_PREFIX if name == APP_NAME else None)
        for name, application in build_applications(load_spec(Path(sys.argv[3]))).items()
    ],
    wait_for_ingress_deployment_creation=False,
    wait_for_applications_running=False,
)
"""
"""What `heliostat serve --ray ADDRESS` does, but for the proxies."""


@pytest.fixture
async def scaling(free_port, sim_client) -> AsyncIterator:
    """The spec on a Ray of three nodes on this host: two replicas fit on each, or one and the router."""
    before, port = dict(os.environ), free_port()
    set_serve_environment()  # what Serve's processes on these nodes read
    ray = RayCluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "node_ip_address": LOOPBACK, "include_dashboard": False},
    )
    try:
        for _ in range(2):
            ray.add_node(num_cpus=1, node_ip_address=LOOPBACK)
        command = [sys.executable, "-c", SERVE, ray.address, f"{port}", str(SPEC)]
        served = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert served.returncode == 0, served.stderr
        async with AsyncExitStack() as stack:
            sim = await sim_client(f"http://127.0.0.1:{port}", load_spec(SPEC), stack)
            await sim.until(lambda: is_ready(sim), START_S)
            yield sim
    finally:
        await asyncio.to_thread(ray.shutdown)
        os.environ.clear()
        os.environ.update(before)


async def is_ready(sim) -> bool:
    await asyncio.sleep(0.2)
    try:
        return (await sim.http.get("/ready")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


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
