"""vLLM's own API server as a subprocess: what a user would run instead of a cluster (vLLM 0.32).

It gets what our replicas get of `deployments.environment`, and vLLM loads this project's plugin in it too,
because the plugin is installed: faster and exact LoRA on CPU, and readers that nap instead of spinning.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.report import REPOSITORY
from benchmarks.server import free_port, stop
from deployments.environment import replica_environment
from heliostat.errors import HeliostatError
from heliostat.spec import Pool

NICE = ("nice", "-n", "15")
"""As Ray starts its workers: a load generator on the same cores must not come first with one side alone."""

READY_S = 300.0
STOP_S = 30.0
POLL_S = 0.5
TAIL = 3000
"""Characters of its log that an error shows."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A running server, and the root of its processes."""

    url: str
    pid: int


@contextmanager
def running_vllm(flags: Sequence[str], pool: Pool, log: Path) -> Iterator[Plain]:
    """Serve with these flags, in the environment that a replica of `pool` would have, until the end of the
    context; `log` gets all that it prints.

    Raises HeliostatError when it ends, or is not ready in time.
    """
    port = free_port()
    line = [*NICE, sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    line += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            line,
            cwd=REPOSITORY,
            env=os.environ | replica_environment(pool),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C must reach it once, from `stop`
        )
    try:
        plain = Plain(f"http://127.0.0.1:{port}", process.pid)
        _wait(plain.url, process, log)
        yield plain
    finally:
        stop(process, STOP_S, lambda: os.killpg(process.pid, signal.SIGKILL))


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HeliostatError(f"vLLM ended with status {process.returncode}: {_tail(log)}")
        try:
            if httpx.get(f"{url}/health", timeout=5.0).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(POLL_S)
    raise HeliostatError(f"vLLM at {url} is not ready after {READY_S:.0f} s: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-TAIL:]
