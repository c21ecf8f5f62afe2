"""The peer: vLLM's own API server with all adapters in one engine, as a user would start it (vLLM 0.32).

It gets what our replicas get of `deployments.environment`, and vLLM loads this project's plugin in it too,
because the plugin is installed: faster and exact LoRA on CPU, and readers that nap instead of spinning.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.many_models_family import MAX_MODEL_LEN, RANK, Family
from benchmarks.many_models_specs import BLOCK_SIZE, KV_CACHE_GIB, MAX_BATCHED_TOKENS, MAX_RUNNING, SLOTS
from benchmarks.report import REPOSITORY
from benchmarks.server import free_port
from deployments.environment import replica_environment
from heliostat.errors import HeliostatError
from heliostat.spec import Lora, Pool

THREADS = 2
"""As many as our two engines have together."""

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


def command(family: Family, port: int) -> list[str]:
    """Its command line; every adapter is loaded at the start and stays in memory."""
    names = family.adapters
    line = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    line += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    line += ["--model", str(family.base), "--dtype", "float32", "--enforce-eager"]
    line += ["--max-model-len", str(MAX_MODEL_LEN), "--block-size", str(BLOCK_SIZE)]
    line += ["--max-num-seqs", str(MAX_RUNNING), "--max-num-batched-tokens", str(MAX_BATCHED_TOKENS)]
    line += ["--kv-cache-memory-bytes", str(int(2 * KV_CACHE_GIB * 2**30))]
    line += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    line += ["--enable-lora", "--max-loras", str(SLOTS), "--max-lora-rank", str(RANK)]
    line += ["--max-cpu-loras", str(max(SLOTS, len(names)))]
    return [*line, "--lora-modules", *(f"{name}={path}" for name, path in names.items())]


@contextmanager
def running_plain(family: Family, log: Path, *, threads: int = THREADS) -> Iterator[Plain]:
    """Serve the family's models until the end of the context; `log` gets all that it prints.

    Raises HeliostatError when it ends, or is not ready in time.
    """
    port = free_port()
    environment = replica_environment(Pool(weights=str(family.base), gpus=0, cpus=threads, lora=Lora()))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(family, port),
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C must reach it once, from `_stop`
        )
    try:
        plain = Plain(f"http://127.0.0.1:{port}", process.pid)
        _wait(plain.url, process, log)
        yield plain
    finally:
        _stop(process)


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


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
