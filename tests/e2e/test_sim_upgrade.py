"""An upgrade replaces every replica: those that leave get no new work and finish what they have."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from heliostat.wire import Role

pytestmark = pytest.mark.sim

REDEPLOY = Path(__file__).parent / "redeploy.py"
SPEC = Path(__file__).parent / "sim.yaml"
UPGRADE_S = 120


def prompt(seed: int) -> list[int]:
    rng = random.Random(f"upgrade-{seed}")
    return [rng.randint(60, 90) for _ in range(40)]


async def pids(sim) -> set[int]:
    return {replica.pid for pool in (await sim.status()).pools for replica in pool.replicas}


def ray_of(pid: int) -> tuple[str, dict[str, str]]:
    """Where the Ray of a replica is, and what lets one in: its parent, Ray's daemon, was told."""
    raylet = psutil.Process(pid).parent()
    (told,) = (word for word in raylet.cmdline() if word.startswith("--gcs-address="))
    return told.partition("=")[2], {k: v for k, v in raylet.environ().items() if k.startswith("RAY_AUTH")}


async def test_streams_outlast_an_upgrade_of_everything(sim) -> None:
    num_tokens, prompts = 1900, [prompt(seed) for seed in range(8)]
    streams = await asyncio.gather(
        *(sim.open(model="home", prompt=ids, max_tokens=num_tokens) for ids in prompts)
    )
    before = await pids(sim)
    (replica, *_) = await sim.replicas(Role.DECODE, "base")
    address, access = ray_of(replica.pid)
    command = [sys.executable, str(REDEPLOY), address, str(SPEC)]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, env={**os.environ, **access}
    )
    assert done.returncode == 0, done.stderr

    for stream, ids in zip(await asyncio.gather(*(s.read() for s in streams)), prompts, strict=True):
        assert stream.done and not stream.broken and stream.error is None
        assert stream.tokens[0] == sim.expected("home", ids, num_tokens)

    async def replaced() -> bool:
        """All replicas are new ones, and the cluster answers; a router that leaves breaks its connections."""
        try:
            status = await sim.status()
        except (httpx.TransportError, ValueError):
            return False
        return status.ready and not before & {r.pid for pool in status.pools for r in pool.replicas}

    await sim.until(replaced, UPGRADE_S)
    answer = await sim.post(model="home", prompt=prompt(99), max_tokens=5)
    assert answer.json()["choices"][0]["token_ids"] == sim.expected("home", prompt(99), 5)
