"""Where the metrics of this Ray cluster are: Ray's agent shows those of all processes of its node."""

import asyncio

import ray


async def scrape_targets() -> tuple[str, ...]:
    """`host:port` of every living node. Not on the event loop: it asks Ray's head node."""
    nodes = await asyncio.to_thread(ray.nodes)
    return tuple(
        sorted(f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in nodes if node["Alive"])
    )
