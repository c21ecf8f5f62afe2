"""The wait for applications that were put on Serve: a line per pool, and the root cause when one fails."""

import time
from collections.abc import Callable, Iterable, Mapping
from math import inf
from urllib.parse import urlsplit

from rich.console import Console

from cluster.deploy_config import FAILED
from cluster.progress import start_failure
from cluster.serve_api import Application, HttpOptions, ServeDetails
from deployments.names import application_label
from heliostat.errors import HeliostatError

POLL_S = 0.5
RUNNING = "RUNNING"
ANY_HOST = "0.0.0.0"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Look = Callable[[], ServeDetails]


def wait_until_there(
    look: Look,
    names: Iterable[str],
    removed: Iterable[str],
    console: Console,
    sleep: Callable[[float], None] = time.sleep,
    timeout_s: float = inf,
) -> ServeDetails:
    """Until those applications run and the removed ones are gone; returns the last look.

    Raises HeliostatError with the root cause when one cannot, with what it waits for after `timeout_s`, and
    both times with what serves nevertheless.
    """
    start = time.monotonic()
    pending, leaving = set(names), set(removed)
    said: dict[str, str] = {}

    def say(name: str, text: str) -> None:
        if said.get(name) != text:
            said[name] = text
            console.print(f"  {application_label(name):<24} {text}")

    while True:
        details = look()
        after_s = f"after {time.monotonic() - start:.0f} s"
        for name in sorted(pending):
            application = details.applications.get(name)
            if application is None:
                continue
            if application.status == RUNNING:
                pending.discard(name)
                if name in said:
                    say(name, f"ready {after_s}")
            elif _has_failed(application):
                messages = (deployment.message for deployment in application.deployments.values())
                error = start_failure(application.message, messages)
                raise HeliostatError(f"{error}{_hint(str(error))}\n{still_serving(details.applications)}")
            else:
                say(name, _state(application))
        for name in sorted(leaving):
            if name in details.applications:
                say(name, "leaves; what it runs may finish …")
            else:
                leaving.discard(name)
                say(name, f"gone {after_s}")
        if not pending and not leaving:
            return details
        if time.monotonic() - start > timeout_s:
            waits = "; ".join(
                f"{application_label(name)} {said.get(name, 'is not there')}" for name in pending | leaving
            )
            serving = still_serving(details.applications)
            raise HeliostatError(f"not done after {timeout_s:g} s, and it goes on: {waits}\n{serving}")
        sleep(POLL_S)


def still_serving(applications: Mapping[str, Application]) -> str:
    """Which of ours answer now, in one line."""
    there = [
        f"{application_label(name)} ({sum(d.num_running() for d in application.deployments.values())})"
        for name, application in applications.items()
        if any(deployment.num_running() for deployment in application.deployments.values())
    ]
    return f"replicas that serve now: {', '.join(there) if there else 'none'}"


def front_door(address: str, http: HttpOptions | None) -> str | None:
    """Where clients reach the routers, as far as one can tell from here; None when only the nodes can."""
    if http is None:
        return None
    dashboard = urlsplit(address).hostname or ""
    host = dashboard if http.host == ANY_HOST else http.host
    if host in LOOPBACK and dashboard not in LOOPBACK:
        return None
    return f"http://{host}:{http.port}"


def _has_failed(application: Application) -> bool:
    """UNHEALTHY alone may pass: Serve starts a replica that died again."""
    if application.status == FAILED:
        return True
    deployments = application.deployments.values()
    lacks = any(d.target_num_replicas and not d.num_running() for d in deployments)
    return application.status == "UNHEALTHY" and lacks


def _state(application: Application) -> str:
    """What Serve says it waits for, such as resources, in its first line."""
    for deployment in application.deployments.values():
        if deployment.message and deployment.status not in ("HEALTHY", "UPSCALING", "DOWNSCALING"):
            return f"waits: {deployment.message.strip().splitlines()[0]}"
    return "loading …"


def _hint(reason: str) -> str:
    if "no such directory on this host" in reason:
        return "; directories are looked up on the nodes: have the weights there, or give a hub name"
    return ""
