"""`heliostat deploy`, `diff` and `down` on a Ray that runs: nothing fails meanwhile, and others stay."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.serve_api import PATH, ServeApi
from cluster.serve_api import _token as ray_token
from deployments.sim_tokens import expected_tokens
from heliostat.spec import Spec
from heliostat.specfile import load_spec
from kvtransfer.contract import kv_domain, read_module

pytestmark = pytest.mark.sim

HERE = Path(__file__).parent
WEIGHTS = HERE.parents[1] / "examples" / "quickstart" / "weights"
START_S = 120
COMMAND_S = 240
STOP_S = 60
SHORT, LONG = 12, 700

SPEC = """
family: {{base: {weights}/base, dtype: float32, max_model_len: 2048, block_size: 32}}
transfer: {{lease_s: 10, directory: {folder}/kv}}
prefill:
  home: {{weights: {weights}/{home}, engine: sim, gpus: 0, cpus: 0.1, replicas: 2}}
  mirror: {{weights: {weights}/mirror-prefill, engine: sim, gpus: 0, cpus: 0.1}}
decode:
  base: {{weights: {weights}/base, engine: sim, gpus: 0, cpus: 0.1, replicas: {replicas}, max_running: 64,
          sim: {{step_ms: 5{sim}}}, surge_percent: 100}}
models:
  home: {{prefill: home, decode: base}}
  mirror: {{prefill: mirror, decode: base}}
{more}
"""


@dataclass
class Head:
    """A Ray with a dashboard, and the port at which Serve will listen there."""

    address: str
    port: int
    folder: Path
    spec_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spec(self, home: str = "home-prefill", replicas: int = 1, more: str = "", sim: str = "") -> Spec:
        text = SPEC.format(
            weights=WEIGHTS, folder=self.folder, home=home, replicas=replicas, more=more, sim=sim
        )
        self.spec_file.write_text(text)
        return load_spec(self.spec_file)

    def run(self, command: str, *args: str) -> subprocess.CompletedProcess[str]:
        """`heliostat COMMAND` about this cluster and, but for `down`, the last spec."""
        spec = [] if command == "down" else [str(self.spec_file)]
        port = ["--port", str(self.port)] if command == "deploy" else []
        return subprocess.run(
            [*(sys.executable, "-m", "cluster.cli", command, *spec), "--address", self.address, *port, *args],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )

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


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, free_port) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("deploy")
    with running_ray(folder, (free_port(), free_port())) as address:
        yield Head(address, free_port(), folder, folder / "cluster.yaml")


def expected(spec: Spec, model: str, prompt: list[int], num_tokens: int) -> list[int]:
    route = spec.models[model]
    modules = (spec.prefill[route.prefill], spec.decode[route.decode])
    domains = [kv_domain(read_module(Path(pool.weights)), spec.family.dtype) for pool in modules]
    return list(expected_tokens(prompt, domains[0], domains[1], num_tokens))


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


@pytest.fixture
async def http(head: Head):
    async with AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=None)
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=head.url, timeout=60, limits=limits))


def test_a_first_deploy_stands_beside_other_applications(head: Head) -> None:
    other = {"name": "other", "route_prefix": "/other", "import_path": "other_app:build", "args": {"a": "b"}}
    http = {"host": "127.0.0.1", "port": head.port}
    access = {"Authorization": f"Bearer {ray_token()}"}
    put = httpx.put(
        head.address + PATH, json={"http_options": http, "applications": [other]}, headers=access, timeout=60
    )
    assert put.status_code == 200, put.text
    spec = head.spec()
    assert head.run("diff").returncode == 1

    deployed = head.run("deploy")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert f"ready: {head.url}/v1" in deployed.stdout
    prompt = list(range(60, 90))
    answer = httpx.post(
        f"{head.url}/v1/completions",
        json={"model": "home", "prompt": prompt, "max_tokens": 9, "temperature": 0, "return_token_ids": True},
        timeout=60,
    )
    assert answer.json()["choices"][0]["token_ids"] == expected(spec, "home", prompt, 9)
    assert httpx.get(f"{head.url}/other", timeout=30).text == "not ours"

    before = head.replicas()
    again = head.run("deploy")
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert head.run("diff").returncode == 0
    assert head.replicas() == before, "a second deploy of the same spec restarts nothing"


async def test_replicas_and_models_change_under_load_and_no_pool_restarts(head: Head, http) -> None:
    old = head.spec()
    before = await asyncio.to_thread(head.replicas)
    load = Load(head.url, ("home", "mirror"))
    load.start(http)
    await load.until(20)
    new = head.spec(replicas=2, more="  twin: {prefill: home, decode: base, limits: {weight: 2}}")
    deployed = await asyncio.to_thread(head.run, "deploy")
    await load.until(20)
    await load.stop()
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr

    assert load.failures == []
    for _, model, prompt, num_tokens, tokens in load.answers:
        assert tokens == expected(old, model, list(prompt), num_tokens)
    answer = await http.post(
        "/v1/completions", json={"model": "twin", "prompt": [60, 61, 62], "max_tokens": 3}
    )
    assert answer.status_code == 200, answer.text
    assert set(new.models) == {"home", "mirror", "twin"}

    after = await asyncio.to_thread(head.replicas)
    for pool in ("prefill-home", "prefill-mirror", "decode-base"):
        assert before[f"heliostat-{pool}"] <= after[f"heliostat-{pool}"], f"no replica of {pool} restarts"
    assert len(after["heliostat-decode-base"]) == 2
    assert before["heliostat"] != after["heliostat"], "routers take a model more by being made anew"


async def test_other_weights_under_load_are_the_old_ones_or_the_new_ones_and_no_mix(head: Head, http) -> None:
    more = "  twin: {prefill: home, decode: base, limits: {weight: 2}}"
    old = head.spec(replicas=2, more=more)
    before = await asyncio.to_thread(head.replicas)
    load = Load(head.url, ("home", "twin", "mirror"))
    load.start(http)
    await load.until(20)
    new = head.spec(home="base", replicas=2, more=more, sim=", per_request_ms: 0.01")
    changes = await asyncio.to_thread(head.run, "diff")
    assert changes.returncode == 1 and "prefill.home" in changes.stdout
    deployed = await asyncio.to_thread(head.run, "deploy")
    ended_s = time.monotonic()
    await load.until(20)
    await load.stop()
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr

    assert load.failures == []
    versions = set()
    for began_s, model, prompt, num_tokens, tokens in load.answers:
        left, right = (expected(spec, model, list(prompt), num_tokens) for spec in (old, new))
        assert tokens in (left, right), f"{model} is neither the old version nor the new one"
        if model != "mirror":
            assert left != right
            versions.add(tokens == right)
            assert tokens == right or began_s < ended_s, "after the deploy there is only the new version"
    assert versions == {False, True}, "both versions answered while the pools were made anew"

    after = await asyncio.to_thread(head.replicas)
    assert not before["heliostat-prefill-home"] & after["heliostat-prefill-home"]
    assert not before["heliostat-decode-base"] & after["heliostat-decode-base"]
    assert before["heliostat-prefill-mirror"] == after["heliostat-prefill-mirror"]


def test_an_engine_that_does_not_start_is_one_line_and_what_was_there_serves_on(head: Head) -> None:
    broken = head.folder / "calibration.json"
    broken.write_text("{}")
    more = "  twin: {prefill: home, decode: base, limits: {weight: 2}}"
    head.spec(home="base", replicas=2, more=more, sim=f", calibration: {broken}")
    failed = head.run("deploy")
    assert failed.returncode == 1
    assert "pool decode.base: the engine did not start" in failed.stderr, failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "replicas that serve now:" in failed.stderr and "decode.base" in failed.stderr
    answer = httpx.post(
        f"{head.url}/v1/completions",
        json={"model": "home", "prompt": [60, 61, 62], "max_tokens": 3},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text

    head.spec(home="base", replicas=2, more=more, sim=", per_request_ms: 0.01")
    back = head.run("deploy")
    assert back.returncode == 0, back.stdout + back.stderr


def test_down_removes_ours_and_nothing_else(head: Head) -> None:
    gone = head.run("down")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert set(ServeApi(head.address).details().applications) == {"other"}
    assert httpx.get(f"{head.url}/other", timeout=30).text == "not ours"
    assert "nothing to do" in head.run("down").stdout
