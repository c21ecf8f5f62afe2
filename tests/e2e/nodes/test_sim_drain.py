"""A node that leaves (`heliostat-drain`): its replicas start elsewhere first, and end what they have."""

import asyncio
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.drain import announce
from heliostat.wire import Role

pytestmark = pytest.mark.nodes

SPEC = Path(__file__).parent / "drain.yaml"
MOVE_S, MAY_TAKE_S = 180, 120
CLIENTS, STREAMS = 4, 6

RAYLETS = """
import json, os, sys
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
parent = ray.remote(num_cpus=0)(lambda: os.getppid())
ids = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
pids = ray.get([parent.options(scheduling_strategy=On(node, soft=False)).remote() for node in ids])
print(json.dumps(dict(zip(map(str, pids), ids))))
"""


def node_ids(address: str) -> dict[int, str]:
    """Every node by the process id of its raylet, which is the parent of its replicas."""
    done = subprocess.run([sys.executable, "-c", RAYLETS, address], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {int(pid): node for pid, node in json.loads(done.stdout.splitlines()[-1]).items()}


def prompt(seed: object) -> list[int]:
    rng = random.Random(f"drain-{seed}")
    return [rng.randint(60, 90) for _ in range(40)]


async def test_a_drained_node_loses_no_request(nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with nodes(SPEC) as running:
        sim, address = running.sim, running.ray.address
        raylets = await asyncio.to_thread(node_ids, address)

        async def where() -> list[str]:
            """The nodes of the decode replicas."""
            replicas = await sim.replicas(Role.DECODE, "base")
            return [raylets[psutil.Process(replica.pid).ppid()] for replica in replicas]

        before = await where()
        assert len(before) == 2
        leaving, moved, seeds = before[0], asyncio.Event(), itertools.count()

        async def client() -> None:
            while not moved.is_set():
                ids = prompt(next(seeds))
                answer = await sim.post(model="home", prompt=ids, max_tokens=20)
                assert answer.status_code == httpx.codes.OK, answer.text
                assert answer.json()["choices"][0]["token_ids"] == sim.expected("home", ids, 20)

        async def is_empty() -> bool:
            await asyncio.sleep(0.2)
            try:
                now = await where()
            except psutil.NoSuchProcess:  # it has just gone
                return False
            return len(now) == 2 and leaving not in now

        prompts = [prompt(f"long-{number}") for number in range(STREAMS)]
        streams = [await sim.open(model="home", prompt=ids, max_tokens=1200) for ids in prompts]
        async with asyncio.TaskGroup() as load:
            for _ in range(CLIENTS):
                load.create_task(client())
            monkeypatch.setenv("RAY_ADDRESS", address)
            assert await asyncio.to_thread(announce, MAY_TAKE_S, leaving) is None
            ended = await asyncio.gather(*(stream.read() for stream in streams))
            await sim.until(is_empty, MOVE_S)
            moved.set()
        for stream, ids in zip(ended, prompts, strict=True):
            assert stream.done and not stream.broken and stream.error is None
            assert stream.tokens[0] == sim.expected("home", ids, 1200)
        assert next(seeds) > CLIENTS
