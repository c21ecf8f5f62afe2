"""What the router is compared with, each in an environment of its own that it can be run from.

    vllm-router      PyPI's Rust router, in front of vLLM API servers
    sglang-router    PyPI's Rust gateway (the engine's HTTP API is OpenAI's, so it serves vLLM as well)
    ray.serve.llm    Ray Serve LLM on one replica with the stand-in engine inside; it takes no backend

Environments are made below a folder that the caller names; one that holds the same packages is kept.
Everything listens on the loopback interface; Ray's HAProxy is the exception, and listens on all.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.report import REPOSITORY
from heliostat.errors import HeliostatError

READY_S = 180.0
STOP_S = 30.0
POLL_S = 0.25

ENGINE_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
"""Nothing is looked up outside; the stand-in has no KV cache, but vLLM sizes one in its configuration."""

METRICS_PORT_OFFSET = 1000
"""From a router's port to that of its metrics; both routers want the same one by default."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What stands behind a peer: the API servers, and what they serve."""

    urls: tuple[str, ...]
    model: str
    weights: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A router to compare with: its pinned packages, and how its command line begins.

    `on_project` adds this project's own packages to the environment, behind the peer's.
    """

    name: str
    packages: tuple[str, ...]
    module: str
    options: tuple[str, ...] = ()
    on_project: bool = False

    def install(self, cache: Path) -> Path:
        """Make the environment below `cache` unless it is there; its interpreter. Raises HeliostatError."""
        home = cache / self.environment
        python = home / "bin" / "python"
        mark = home / f"installed-{self._digest()}"
        if mark.exists():
            return python
        _run(_uv("venv", "--quiet", "--clear", "--python", sys.executable, str(home)))
        # What the project already holds is not installed again.
        depends = ["--no-deps"] if self.on_project else []
        _run(_uv("pip", "install", "--quiet", *depends, "--python", str(python), *self.packages))
        if self.on_project:
            (_site_packages(home) / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
        mark.touch()
        return python

    @property
    def environment(self) -> str:
        """The name of its environment's folder; peers with equal packages share one."""
        kind = "project" if self.on_project else self.packages[0].partition("==")[0]
        return f"{kind}-{self._digest()}"

    def _digest(self) -> str:
        text = "\n".join((*self.packages, sys.version, str(self.on_project)))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def command(self, python: Path, backend: Backend, port: int) -> list[str]:
        """The command line that serves on the loopback interface's `port`."""
        line = [str(python), "-m", self.module, "--port", str(port)]
        if self.on_project:
            line += ["--model", backend.model, "--weights", str(backend.weights)]
        else:
            line += ["--host", "127.0.0.1", "--worker-urls", *backend.urls, "--policy", "round_robin"]
            line += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(port + METRICS_PORT_OFFSET)]
        return [*line, *self.options]

    def start(self, cache: Path, backend: Backend, port: int, log: Path) -> "subprocess.Popen[bytes]":
        """Start it; `wait_ready` says when it serves, `stop` ends it. `log` gets all that it prints."""
        return _launch(self.command(self.install(cache), backend, port), log)


def start_standin(
    model: str, weights: Path, port: int, log: Path, *, step_ms: float = 0.0, stats: bool = True
) -> "subprocess.Popen[bytes]":
    """Start vLLM's API server over the stand-in engine (`benchmarks.router_standin`), as `Peer.start`."""
    line = [sys.executable, "-m", "benchmarks.router_standin", "--port", str(port), "--model", model]
    line += ["--weights", str(weights), "--step-ms", str(step_ms)]
    return _launch(line if stats else [*line, "--no-stats"], log)


def _launch(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | ENGINE_ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C must reach it once, from `stop`
        )


RAY_MODULE = "benchmarks.router_ray"
RAY_PACKAGES = ("pyarrow==26.0.1", "jsonref==1.1.0")
"""What `ray.serve.llm` imports beyond this project; the vLLM 0.29 for CUDA of `ray[llm]` is left out."""

VLLM_ROUTER = Peer(
    "vllm-router", ("vllm-router==0.1.17",), "vllm_router.launch_router", ("--log-level", "warning")
)
SGLANG_ROUTER = Peer(
    "sglang-router", ("sglang-router==0.3.2",), "sglang_router.launch_router", ("--log-level", "warn")
)
RAY_SERVE_LLM = Peer("ray.serve.llm", RAY_PACKAGES, RAY_MODULE, on_project=True)
RAY_SERVE_LLM_UNBATCHED = Peer(
    "ray.serve.llm, no batching", RAY_PACKAGES, RAY_MODULE, ("--batch-ms", "0"), on_project=True
)
RAY_SERVE_LLM_DIRECT = Peer(
    "ray.serve.llm, direct streaming", RAY_PACKAGES, RAY_MODULE, ("--direct",), on_project=True
)
PEERS = (VLLM_ROUTER, SGLANG_ROUTER, RAY_SERVE_LLM, RAY_SERVE_LLM_UNBATCHED, RAY_SERVE_LLM_DIRECT)


def wait_ready(url: str, model: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until `model` answers at `url`; a peer may say that it is well before it knows its backends.

    Raises HeliostatError when the process ends, or after READY_S seconds, with the end of `log`.
    """
    deadline = time.monotonic() + READY_S
    problem = "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HeliostatError(f"{url}: ended with status {process.returncode}: {_tail(log)}")
        try:
            response = httpx.post(
                f"{url}/v1/completions",
                json={"model": model, "prompt": "a", "max_tokens": 1},
                timeout=5.0,
            )
            if response.status_code == 200:
                return
            problem = f"HTTP {response.status_code}"
        except httpx.TransportError as error:
            problem = type(error).__name__
        time.sleep(POLL_S)
    raise HeliostatError(f"{url} is not ready after {READY_S:.0f} s ({problem}): {_tail(log)}")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process that this module started, the hard way where it does not end by itself."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:].strip() if log.exists() else ""


def _site_packages(home: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))


def _uv(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).parent / "uv"), *arguments]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise HeliostatError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the environments of all peers.")
    parser.add_argument("cache", type=Path, help="the folder that holds them")
    cache = parser.parse_args().cache
    for peer in PEERS:
        print(f"{peer.name}: {peer.install(cache)}")


if __name__ == "__main__":
    main()
