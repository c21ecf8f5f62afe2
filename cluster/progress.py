"""One progress line per pool while its engines load, and the wait for the endpoint behind them."""

import re
import threading
import time
from collections.abc import Iterable

import httpx
from ray import serve as ray_serve
from ray.serve.schema import ApplicationStatus, DeploymentStatus, DeploymentStatusOverview
from rich.console import Console

from deployments.names import ROUTER, application_names, deployment_name
from heliostat.errors import HeliostatError
from heliostat.spec import Spec

POLL_S = 0.5

READY_POLL_S = 0.05

READY_S = 60.0
"""How long the endpoint may take once Serve runs everything; the router's first beat takes well under 1 s."""

_ROOT_CAUSE = re.compile(r"heliostat\.errors\.(?:EngineStart|Heliostat)Error: (.+)")


def wait_until_running(spec: Spec, console: Console, stop: threading.Event) -> bool:
    """Wait for every pool, saying when each is there; False when `stop` was set first.

    Raises HeliostatError with the root cause when an engine does not start.
    """
    labels = {deployment_name(role, name): f"{role}.{name}" for role, name in spec.pools()}
    labels[ROUTER] = ROUTER
    names = application_names(spec).values()
    start = time.monotonic()
    pending = dict(labels)
    for label in labels.values():
        console.print(f"  {label:<24} loading …")
    while not stop.wait(POLL_S):
        there = ray_serve.status().applications
        for application in (there[name] for name in names if name in there):
            for deployment, overview in application.deployments.items():
                if deployment in pending and _running(overview):
                    label = pending.pop(deployment)
                    console.print(f"  {label:<24} ready after {time.monotonic() - start:.0f} s")
            if application.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                messages = [overview.message for overview in application.deployments.values()]
                raise start_failure(application.message, messages)
        if all(name in there and there[name].status is ApplicationStatus.RUNNING for name in names):
            return True
    return False


def wait_until_ready(url: str, stop: threading.Event | None = None, timeout_s: float = READY_S) -> bool:
    """Wait until `url`/ready says so; False when `stop` was set first.

    Serve calls an application running as soon as its replicas are. The proxy may not know the route
    yet (404), and the router not have heard from every pool (503): a request that came then would fail.
    Raises HeliostatError with the last answer when it takes longer than `timeout_s`.
    """
    stop = stop or threading.Event()
    deadline = time.monotonic() + timeout_s
    answer = "no answer"
    while not stop.wait(READY_POLL_S):
        try:
            response = httpx.get(f"{url}/ready", timeout=5)
        except httpx.TransportError as error:
            answer = str(error)
        else:
            if response.status_code == httpx.codes.OK:
                return True
            answer = response.text.strip()
        if time.monotonic() > deadline:
            raise HeliostatError(f"{url} is not ready {timeout_s:.0f} s after its replicas were: {answer}")
    return False


def _running(overview: DeploymentStatusOverview) -> bool:
    return overview.status is DeploymentStatus.HEALTHY


def start_failure(message: str, deployments: Iterable[str]) -> HeliostatError:
    """The one line that an operator needs out of Serve's messages, which carry whole stack traces.

    `message` is the application's, `deployments` are those of its deployments.
    """
    texts = list(deployments)
    for text in [*texts, message]:
        # What a pool says of its engine stands below what the engine itself has said.
        if found := list(_ROOT_CAUSE.finditer(text)):
            return HeliostatError(found[-1].group(1).strip())
    first = next((text for text in texts if text), message)
    return HeliostatError(f"the application did not start: {first.strip().splitlines()[-1]}")
