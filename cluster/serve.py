"""`heliostat serve`: a spec becomes a running cluster in the foreground, until Ctrl-C.

It stops what it started and nothing else: a Ray that was there before stays, and so do other
applications on its Serve.
"""

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from rich.console import Console

from cluster.plan import make_plan
from cluster.plan_table import render_plan
from cluster.ports import free_ports, is_free
from cluster.progress import wait_until_ready, wait_until_running
from deployments.app import ROUTE_PREFIX, ROUTER_CPUS, build_applications
from deployments.names import APP_NAME
from heliostat.errors import HeliostatError
from heliostat.spec import Spec
from heliostat.specfile import load_spec
from kvtransfer.owner import make_directory

LOOPBACK = "127.0.0.1"

SERVE_CPUS = 1
"""Logical cores for Serve's controller and proxy in a Ray that we start."""


def serve(spec_path: Path, host: str, port: int, ray_address: str) -> int:
    """Serve until SIGINT or SIGTERM. Raises HeliostatError for everything an operator can mend."""
    console = Console(highlight=False)
    spec = load_spec(spec_path)
    plan = make_plan(spec, str(spec_path))  # contract before traffic (rule 7)
    if spec.transfer.connector is not None:
        console.print(
            f"warning: transfer.connector: KV moves by {spec.transfer.connector.name}, not by Heliostat; "
            "that answers stay exact is then yours to see to (docs/kvtransfer.md, The rules)"
        )
    make_directory(spec.transfer)
    _check_host(host)
    port = _free_port(host, port)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with _ray(spec, console, ray_address, host) as own_ray:
        stop = _stop_event()  # after Ray, which puts its own handlers in place
        with _application(spec, host, port, own_ray):
            local = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
            if not (wait_until_running(spec, console, stop) and wait_until_ready(local, stop)):
                console.print("interrupted while loading; stopping …")
                return 130
            render_plan(plan, console)
            console.print(f"page: {local}/ui")
            console.print(f"ready: http://{host}:{port}/v1  (Ctrl-C stops)")
            stop.wait()
            console.print("stopping …")
    return 0


def _stop_event() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM; a second one ends the process the hard way."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def _check_host(host: str) -> None:
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" and host not in (LOOPBACK, "0.0.0.0"):
        raise HeliostatError(
            f"the host {host} is neither 127.0.0.1 nor 0.0.0.0, where HAProxy reaches the routers beside it; "
            "say one of these"
        )


def _free_port(host: str, port: int) -> int:
    """`port`, or for 0 any that is free. Raises HeliostatError when it is taken."""
    if port == 0:
        return free_ports(1, host)[0]
    if not is_free(host, port):
        raise HeliostatError(f"cannot listen on {host}:{port}: address in use; try another --port")
    return port


@contextmanager
def _ray(spec: Spec, console: Console, address: str, host: str) -> Iterator[bool]:
    """The Ray cluster at `address`, or one of our own for as long as we run (see `--ray`).

    Yields whether it is our own.
    """
    quiet = {"logging_level": "ERROR", "log_to_driver": False, "namespace": "serve"}
    ours = address == "local"
    if not ours:
        try:
            ray.init(address=address, **quiet)
            console.print(f"using the Ray cluster at {ray.get_runtime_context().gcs_address}")
        except ConnectionError as error:
            if address != "auto":
                raise HeliostatError(f"no Ray cluster answers at {address}: {error}") from error
            ours = True
    if ours:
        console.print("starting a local Ray …")
        # HAProxy reaches routers at their node's address, and they listen where we were told to.
        node = {"_node_ip_address": LOOPBACK} if host == LOOPBACK else {}
        ray.init(address="local", num_cpus=_local_cpus(spec), include_dashboard=False, **node, **quiet)
    try:
        _check_resources(spec)
        yield ours
    finally:
        ray.shutdown()
        if ours:
            console.print("Ray is stopped")


def _local_cpus(spec: Spec) -> int:
    """Logical cores are a promise of the spec; fewer than it asks for would leave replicas pending."""
    wanted = sum(pool.cpus * pool.replicas.max for pool in spec.pools().values())
    return max(os.cpu_count() or 1, math.ceil(wanted + spec.router.replicas * ROUTER_CPUS + SERVE_CPUS))


def _check_resources(spec: Spec) -> None:
    there = ray.cluster_resources()
    for name, wanted in (
        ("GPU", sum(pool.gpus * pool.replicas.min for pool in spec.pools().values())),
        ("CPU", sum(pool.cpus * pool.replicas.min for pool in spec.pools().values())),
    ):
        if wanted > there.get(name, 0):
            raise HeliostatError(
                f"the spec's pools ask for {wanted:g} {name}s, the Ray cluster has {there.get(name, 0):g}; "
                "lower `replicas`, `gpus` or `cpus` in the spec, or add nodes"
            )


@contextmanager
def _application(spec: Spec, host: str, port: int, own_ray: bool) -> Iterator[None]:
    """Our applications on Serve; on a Ray that stays, Serve goes too when we started it."""
    ours = not ray_serve.status().proxies
    applications = build_applications(spec)
    if not ours and APP_NAME in ray_serve.status().applications:
        raise HeliostatError(
            f"an application named {APP_NAME} already runs on this Ray cluster; stop it first, "
            "or say --ray local to serve beside it"
        )
    with _serve_errors():
        ray_serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
    try:
        with _serve_errors():
            ray_serve.run_many(
                [
                    ray_serve.RunTarget(
                        application, name=name, route_prefix=ROUTE_PREFIX if name == APP_NAME else None
                    )
                    for name, application in applications.items()
                ],
                wait_for_ingress_deployment_creation=False,
                wait_for_applications_running=False,
            )
        yield
    finally:
        # Each waits for its replicas, whose engines end their own processes.
        with ThreadPoolExecutor(len(applications)) as threads:
            list(threads.map(ray_serve.delete, applications))
        if ours and not own_ray:
            ray_serve.shutdown()


@contextmanager
def _serve_errors() -> Iterator[None]:
    """What Serve's own processes could not do, in the one line that says why."""
    try:
        yield
    except (RayError, RayServeException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "[ALERT]" in line or "Exception: " in line), lines[-1])
        raise HeliostatError(f"Ray Serve did not start: {reason}") from error
