"""A client that goes away aborts both legs and frees the KV."""

import asyncio
import os
import random

import httpx
import pytest

from heliostat.status import ClusterStatus, ReplicaStatus

pytestmark = pytest.mark.cluster

CANCELS = 1000
LONG = "a" * 900


async def replicas(http: httpx.AsyncClient) -> list[ReplicaStatus]:
    status = ClusterStatus.model_validate_json((await http.get("/status")).content)
    return [replica for pool in status.pools for replica in pool.replicas]


async def settled(http: httpx.AsyncClient, within_s: float) -> list[ReplicaStatus]:
    """The replicas once none has work or KV left, or as they are when the time is over."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                now = await replicas(http)
            except TimeoutError:
                break
            if all(r.running + r.waiting + r.queued_prompt_tokens == 0 and r.kv_use == 0 for r in now):
                return now
    return await replicas(http)


async def cancel_one(http: httpx.AsyncClient, rng: random.Random) -> None:
    """Leave at a random moment: before the prefill, during it, during the handoff, or in mid-stream."""
    body = {
        "model": rng.choice(["base", "home", "mirror", "spell"]),
        "prompt": LONG[: rng.randint(1, 900)],
        "max_tokens": 1000,
        "ignore_eos": True,
        "stream": rng.random() < 0.5,
    }
    request = asyncio.create_task(http.post("/v1/completions", json=body))
    _, pending = await asyncio.wait([request], timeout=rng.choice([0.001, 0.01, 0.03, 0.1, 0.3]))
    assert pending, "a thousand tokens cannot be out yet"
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request


async def test_kv_is_back_at_idle_after_1000_cancelled_requests(cluster) -> None:
    rng = random.Random(3)
    gate = asyncio.Semaphore(16)
    async with httpx.AsyncClient(base_url=cluster.url, timeout=60) as http:
        idle = await settled(http, 30)
        assert {replica.kv_use for replica in idle} == {0.0}

        async def one() -> None:
            async with gate:
                await cancel_one(http, rng)

        await asyncio.gather(*(one() for _ in range(CANCELS)))
        now = await settled(http, cluster.spec.transfer.lease_s)
        assert {replica.name: replica.kv_use for replica in now if replica.kv_use} == {}
        assert [r.name for r in now if r.running or r.waiting or r.queued_prompt_tokens] == []
        assert len(now) == len(idle), "no replica was lost"
        answer = await http.post(
            "/v1/chat/completions",
            json={
                "model": "home",
                "messages": [{"role": "user", "content": "turn my lamp to 40"}],
                "temperature": 0,
            },
        )
        assert answer.json()["choices"][0]["message"]["content"] == "set(lamp,40)"


async def test_no_segment_outlives_its_lease(cluster) -> None:
    """Run after the cancels: whatever ticket they left behind is gone when its lease is over."""

    def segments() -> list[str]:
        return [name for name in os.listdir(cluster.spec.transfer.directory) if name.endswith(".kv")]

    async with (
        asyncio.timeout(2 * cluster.spec.transfer.lease_s),
        httpx.AsyncClient(base_url=cluster.url) as http,
    ):
        while segments():
            await http.get("/status")
    assert segments() == []
