"""A Ray of its own with a dashboard, what `heliostat` does to it, and load on what it serves."""

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from served_cluster import connection_for_each, free_port

from cluster.cli import main
from cluster.serve_api import PATH, ServeApi
from deployments.sim_tokens import expected_tokens
from heliostat.spec import Spec
from heliostat.specfile import load_spec
from kvtransfer.contract import kv_domain, read_module

HERE = Path(__file__).parent
START_S = 120
STOP_S = 60
COMMAND_S = 240
SHORT, LONG = 12, 700


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class Head:
    """A Ray with a dashboard, and the port at which Serve will listen there."""

    address: str
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spec_file(self) -> Path:
        return self.folder / "cluster.yaml"

    def write(self, text: str) -> Spec:
        """The spec that the next commands are about."""
        self.spec_file.write_text(text)
        return load_spec(self.spec_file)

    def run(self, command: str, *args: str) -> "Ran":
        """`heliostat COMMAND` about this cluster and, but for `down`, the last spec."""
        spec = [] if command == "down" else [str(self.spec_file)]
        port = ["--port", str(self.port)] if command == "deploy" else []
        port += [] if command == "diff" else ["--timeout", str(COMMAND_S)]
        stdout, stderr = io.StringIO(), io.StringIO()
        with redirect_stdout(stdout), redirect_stderr(stderr):
            returncode = main([command, *spec, "--address", self.address, *port, *args])
        return Ran(returncode, stdout.getvalue(), stderr.getvalue())

    def replicas(self) -> dict[str, set[str]]:
        """The ids of all replicas by application."""
        applications = ServeApi(self.address).details().applications
        return {
            name: {replica.replica_id for d in app.deployments.values() for replica in d.replicas}
            for name, app in applications.items()
        }


@contextmanager
def running_ray(folder: Path, ports: tuple[int, int]) -> Iterator[str]:
    """Yields the dashboard's address; afterwards nothing that it started is left."""
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2"}
    log = (folder / "ray.log").open("w")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "ray_head.py"), str(ports[0]), f"/tmp/hray-{ports[0]}"],
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{ports[0]}"
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                httpx.get(address + PATH, timeout=5)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline and process.poll() is None, (
                    folder / "ray.log"
                ).read_text()
        yield address
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
        _, alive = psutil.wait_procs(family, timeout=STOP_S)
        for left in alive:
            left.kill()
    assert not alive, [f"{left.pid} {left.name()}" for left in alive]


@pytest.fixture(scope="session")
def head_class() -> type[Head]:
    """Tests cannot import a conftest in importlib mode; they get classes and functions as fixtures."""
    return Head


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("deploy")
    with running_ray(folder, (free_port(), free_port())) as address:
        yield Head(address, free_port(), folder)


def expected(spec: Spec, model: str, prompt: list[int], num_tokens: int) -> list[int]:
    route = spec.models[model]
    modules = (spec.prefill[route.prefill], spec.decode[route.decode])
    domains = [kv_domain(read_module(Path(pool.weights)), spec.family.dtype) for pool in modules]
    return list(expected_tokens(prompt, domains[0], domains[1], num_tokens))


@pytest.fixture(scope="session", name="expected")
def expected_fixture() -> Callable[[Spec, str, list[int], int], list[int]]:
    """The tokens of a model by a spec."""
    return expected


@dataclass
class Load:
    """Streams and short requests without a pause, until `stop`; every answer is kept."""

    url: str
    models: tuple[str, ...]
    stopping: bool = False
    answers: list[tuple[float, str, tuple[int, ...], int, list[int]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answered: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, http: httpx.AsyncClient) -> None:
        for number in range(12):
            num_tokens = LONG if number % 3 == 0 else SHORT
            model = self.models[number % len(self.models)]
            self.tasks.append(asyncio.create_task(self._client(http, number, model, num_tokens)))

    async def stop(self) -> None:
        self.stopping = True
        await asyncio.gather(*self.tasks)

    async def until(self, count: int) -> None:
        """That many more answers."""
        while not self.answered.empty():
            self.answered.get_nowait()
        async with asyncio.timeout(60):
            for _ in range(count):
                await self.answered.get()

    async def _client(self, http: httpx.AsyncClient, number: int, model: str, num_tokens: int) -> None:
        rng = random.Random(number)
        while not self.stopping:
            prompt = [rng.randint(60, 90) for _ in range(40)]
            body = {"model": model, "prompt": prompt, "max_tokens": num_tokens, "temperature": 0}
            body |= {"return_token_ids": True, "stream": num_tokens == LONG}
            began_s = time.monotonic()
            try:
                tokens = await (self._stream if num_tokens == LONG else self._short)(http, body)
            except (httpx.HTTPError, AssertionError) as error:
                self.failures.append(f"{model} after {time.monotonic() - began_s:.1f} s: {error!r}")
                continue
            self.answers.append((began_s, model, tuple(prompt), num_tokens, tokens))
            self.answered.put_nowait(None)

    @staticmethod
    async def _short(http: httpx.AsyncClient, body: dict[str, object]) -> list[int]:
        answer = await http.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        tokens: list[int] = answer.json()["choices"][0]["token_ids"]
        return tokens

    @staticmethod
    async def _stream(http: httpx.AsyncClient, body: dict[str, object]) -> list[int]:
        tokens: list[int] = []
        done = False
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                data = line.removeprefix("data: ")
                done |= data == "[DONE]"
                if data.startswith("{"):
                    event = json.loads(data)
                    assert "error" not in event, event
                    tokens += [t for choice in event["choices"] for t in choice["token_ids"] or ()]
        assert done, "the stream broke off"
        return tokens


@pytest.fixture(scope="session")
def load_class() -> type[Load]:
    return Load


@pytest.fixture
async def http(head: Head) -> AsyncIterator[httpx.AsyncClient]:
    async with connection_for_each(head.url) as client:
        yield client
