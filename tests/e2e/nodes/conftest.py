"""A Ray of several nodes on this host, with a spec on it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from ray.cluster_utils import Cluster as RayCluster
from served_cluster import Cluster, free_port
from sim_client import sim_client

from cluster.serve_environment import set_serve_environment
from heliostat.specfile import load_spec

START_S = 180
LOOPBACK = "127.0.0.2"
"""A driver that is told 127.0.0.1 goes to the host's own address instead (Ray 2.60)."""

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


@dataclass
class Nodes:
    """The Ray that runs, and a client of what it serves (`SimClient`)."""

    ray: RayCluster
    sim: object


Running = Callable[[Path], AbstractAsyncContextManager[Nodes]]


@pytest.fixture
def nodes() -> Running:
    """Runs a spec on a Ray of a head and two workers, each with one CPU."""

    @asynccontextmanager
    async def running(spec: Path) -> AsyncIterator[Nodes]:
        before, port = dict(os.environ), free_port()
        set_serve_environment()  # what Serve's processes on these nodes read
        ray = RayCluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "node_ip_address": LOOPBACK, "include_dashboard": False},
        )
        try:
            for _ in range(2):
                ray.add_node(num_cpus=1, resources={"worker": 1}, node_ip_address=LOOPBACK)
            command = [sys.executable, "-c", SERVE, ray.address, f"{port}", str(spec)]
            served = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
            assert served.returncode == 0, served.stderr
            async with AsyncExitStack() as stack:
                sim = await sim_client(Cluster(f"http://127.0.0.1:{port}", load_spec(spec), spec.name), stack)
                await sim.until(lambda: is_ready(sim), START_S)
                yield Nodes(ray, sim)
        finally:
            await asyncio.to_thread(ray.shutdown)
            os.environ.clear()
            os.environ.update(before)

    return running


async def is_ready(sim) -> bool:
    await asyncio.sleep(0.2)
    try:
        return (await sim.http.get("/ready")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
