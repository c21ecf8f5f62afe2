"""The ledger of real engines as Prometheus reads it: what `/status` says of the same replicas."""

import asyncio
import re
from collections import Counter

import httpx
import pytest

pytestmark = pytest.mark.cluster

NEWS_S = 60
"""Replicas tell their metrics every 5 s, Ray's agents hear from them every 10 s."""


async def scraped(http: httpx.AsyncClient, url: str, metric: str) -> Counter[tuple[str, str]]:
    """The sum over all processes, by role and pool."""
    sums: Counter[tuple[str, str]] = Counter()
    for group in (await http.get(f"{url}/heliostat/targets")).json():
        for target in group["targets"]:
            text = (await http.get(f"http://{target}/metrics")).text
            for labels, value in re.findall(rf"^ray_heliostat_{metric}\{{(.*)\}} (\S+)$", text, re.MULTILINE):
                tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                assert tags["transport"] == "shm" and tags["domain"]
                sums[tags["role"], tags["pool"]] += float(value)
    return sums


async def test_bytes_and_tickets_of_the_ledger_are_those_of_the_status(cluster, client) -> None:
    for model in ("home", "spell"):
        await client.completions.create(model=model, prompt="ledger of handoffs " * 4, max_tokens=4)
    told = {
        (pool.role.value, pool.name): (replica.copied_bytes, sum(f.committed for f in replica.handoffs))
        for pool in cluster.status().pools
        for replica in pool.replicas
        if replica.copied_bytes
    }
    assert {role for role, _ in told} == {"prefill", "decode"}
    async with httpx.AsyncClient(timeout=30) as http, asyncio.timeout(NEWS_S):
        while True:
            num_bytes = await scraped(http, cluster.url, "ledger_bytes_total")
            if all(num_bytes[key] >= value for key, (value, _) in told.items()):
                break
        tickets = await scraped(http, cluster.url, "ledger_tickets_total")
    after = {(p.role.value, p.name): p.replicas for p in cluster.status().pools}
    for key, (_, committed) in told.items():
        assert num_bytes[key] <= sum(replica.copied_bytes for replica in after[key])
        assert tickets[key] >= committed
