"""`heliostat serve` as a subprocess for the length of a benchmark."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from cluster.ports import free_ports
from heliostat.errors import HeliostatError

READY_S = 300.0
"""Every engine imports vLLM on the same few cores, so starting takes minutes."""

STOP_S = 60.0
POLL_S = 0.5


@contextmanager
def running_cluster(spec: Path) -> Iterator[str]:
    """Serve `spec` on a free port and give its URL once ready; what was started is stopped at the end.

    Raises HeliostatError when the cluster ends, or is not ready in time.
    """
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", "serve", str(spec), "--ray", "local", "--port", str(port)],
        stdout=sys.stderr,  # stdout is for the table
        # A Ctrl-C must reach it once, from `stop`: a second one would end it without clearing up.
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield url
    finally:
        # `serve` lets a second one end it the hard way.
        stop(process, STOP_S, lambda: process.send_signal(signal.SIGINT))


def wait_until_ready(url: str, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Poll /ready for up to READY_S seconds. Raises HeliostatError, at once when `process` has ended."""
    deadline = time.monotonic() + READY_S
    problem = "no answer"
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise HeliostatError(f"`heliostat serve` ended with status {process.returncode}; see above")
        try:
            response = httpx.get(f"{url}/ready", timeout=5.0)
            if response.status_code == 200:
                return
            problem = response.text
        except httpx.TransportError as error:
            problem = str(error)
        time.sleep(POLL_S)
    raise HeliostatError(f"{url} is not ready after {READY_S:.0f} s: {problem}")


def stop(process: "subprocess.Popen[bytes]", within_s: float, insist: Callable[[], object]) -> None:
    """Ctrl-C; `insist` where that has not ended it in time."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        insist()
        process.wait()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    return free_ports(1, "127.0.0.1")[0]
