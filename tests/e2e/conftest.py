"""Clusters of real vLLM CPU engines, and one of `sim` engines, started as a user would start them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from openai import AsyncOpenAI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from transformers import PreTrainedModel

from cluster.ports import free_ports
from deployments.cpu_kernels import low_bit_problem
from deployments.sim_tokens import DEFAULT_VOCAB, extend, first_state, next_token
from finetune.quantize_load import is_quantized, load_dequantized
from finetune.reference import greedy_reference, icarus_reference, load_adapted, load_module
from heliostat.spec import Spec
from heliostat.specfile import load_spec
from heliostat.status import ClusterStatus, ReplicaStatus
from heliostat.wire import Role
from kvtransfer.contract import kv_domain, read_module

SPEC = Path(__file__).parent / "cluster.yaml"
TRANSPORT_SPEC = Path(__file__).parent / "transport.yaml"
SIM_SPEC = Path(__file__).parent / "sim.yaml"
MODULES_SPEC = Path(__file__).parent / "modules.yaml"
UPGRADE_SPEC = Path(__file__).parent / "upgrade.yaml"
REDEPLOY = Path(__file__).parent / "redeploy.py"
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
DECODE_CHOICE = {"shm": "early", "nixl": "late", "nccl": "early"}
"""Each choice is tried over a transport that keeps KV in files, and over one that keeps it in memory."""
ASKED = {"temperature": 0, "return_token_ids": True}
START_S = 300
STOP_S = 60


@dataclass(frozen=True)
class Cluster:
    """A running cluster and the two modules behind each of its models."""

    url: str
    spec: Spec
    name: str
    """Of its spec file."""

    def status(self) -> ClusterStatus:
        return ClusterStatus.model_validate_json(httpx.get(f"{self.url}/status", timeout=10).content)

    def reference(
        self, model: str, prompt: tuple[int, ...], max_tokens: int, eos: int | None = None
    ) -> list[int]:
        """What the model's two modules give when run by hand."""
        route = self.spec.models[model]
        prefill, decode = self.spec.prefill[route.prefill], self.spec.decode[route.decode]
        writer = prefill.weights, prefill.adapters.get(route.prefill_adapter or "")
        reader = decode.weights, decode.adapters.get(route.decode_adapter or "")
        return _reference(writer, reader, decode.icarus, prompt, max_tokens, eos)


Loaded = tuple[str, str | None]
"""Weights, and the adapter on them."""


@lru_cache
def _module(weights: str, adapter: str | None) -> PreTrainedModel:
    if adapter is not None:
        return load_adapted(weights, adapter)
    return load_dequantized(Path(weights)) if is_quantized(Path(weights)) else load_module(weights)


@cache
def _reference(
    writer: Loaded, reader: Loaded, icarus: bool, prompt: tuple[int, ...], max_tokens: int, eos: int | None
) -> list[int]:
    run = icarus_reference if icarus else greedy_reference
    return run(_module(*writer), _module(*reader), prompt, max_tokens, eos)


def free_port() -> int:
    return free_ports(1, "127.0.0.1")[0]


class ServeProcess:
    """`heliostat serve` in a process group of its own; `output` is everything it printed."""

    def __init__(self, *args: str, environment: Mapping[str, str] | None = None) -> None:
        self.output = ""
        self._printed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cluster.cli", "serve", "--ray", "local", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._printed:
                self.output += line
                self._printed.notify_all()
        with self._printed:
            self._printed.notify_all()

    def wait_for(self, text: str, timeout_s: float) -> None:
        """Until it has printed `text`; fails with its output when it ends before."""
        with self._printed:
            self._printed.wait_for(lambda: text in self.output or not self._reader.is_alive(), timeout_s)
        assert text in self.output, self.output

    def wait(self, timeout_s: float) -> int:
        """Exit status, after all output is read."""
        status = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return status

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit status."""
        self._family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        self.process.send_signal(signal.SIGINT)
        return self.wait(STOP_S)

    def left_behind(self) -> list[str]:
        """Processes that outlived `interrupt`."""
        _, alive = psutil.wait_procs(self._family[1:], timeout=STOP_S)
        return [f"{process.pid} {process.name()}" for process in alive]

    def kill(self) -> None:
        """The hard way, for a test that failed."""
        if self.process.poll() is None:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                process.kill()
            self.process.kill()


@pytest.fixture(scope="session", name="free_port")
def free_port_fixture() -> Callable[[], int]:
    return free_port


@pytest.fixture(scope="session")
def serve_command() -> type[ServeProcess]:
    """Tests cannot import a conftest in importlib mode; they get the class as a fixture."""
    return ServeProcess


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with given_or_running(request, SPEC) as cluster:
        yield cluster


@dataclass(frozen=True)
class SentSpan:
    """One span as it came over OTLP; ids in hex, `error` is the message of a failure."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    service: str
    instance: str
    start_ns: int
    end_ns: int
    error: str
    attributes: dict[str, str | int | float | bool]


class Collector:
    """A small OTLP/HTTP collector: a real HTTP server that decodes what clusters send."""

    def __init__(self) -> None:
        self.spans: list[SentSpan] = []
        self.bodies: list[bytes] = []
        self._news = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._take(self.path, body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        spans = [
            _sent_span(span, {each.key: each.value.string_value for each in resource.resource.attributes})
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._news:
            self.bodies.append(body)
            self.spans += spans
            self._news.notify_all()

    async def wait_for(self, condition: Callable[[list[SentSpan]], bool], within_s: float = 30) -> None:
        def wait() -> bool:
            with self._news:
                return self._news.wait_for(lambda: condition(self.spans), within_s)

        assert await asyncio.to_thread(wait), [span.name for span in self.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _sent_span(span: Span, resource: dict[str, str]) -> SentSpan:
    values = {each.key: each.value for each in span.attributes}
    return SentSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        state=span.trace_state,
        service=resource["service.name"],
        instance=resource["service.instance.id"],
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        error=span.status.message,
        attributes={key: getattr(value, value.WhichOneof("value")) for key, value in values.items()},
    )


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the sim cluster's spans go."""
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="session")
def sim_cluster(request: pytest.FixtureRequest, collector: Collector) -> Iterator[Cluster]:
    """Its requests are traced where their client says so, and in no other test."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    with given_or_running(request, SIM_SPEC, environment) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def modules_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with given_or_running(request, MODULES_SPEC) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def qsun_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The example that users start, where this CPU can run it."""
    if problem := low_bit_problem():
        pytest.skip(problem)
    with given_or_running(request, QUICKSTART.parent / "modules" / "qsun.yaml") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def agents_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The one that the examples' READMEs start."""
    with given_or_running(request, QUICKSTART.parent / "agents" / "cluster.yaml") as cluster:
        yield cluster


@pytest.fixture
def upgrade_cluster() -> Iterator[Cluster]:
    """Never a given one: its test leaves it with other weights."""
    with running(UPGRADE_SPEC) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redeploy() -> Callable[..., None]:
    """`redeploy(pid, spec, *applications)` serves these anew, or all, on the Ray cluster of the replica with
    that process id."""

    def served_anew(pid: int, spec: Path, *applications: str) -> None:
        raylet = psutil.Process(pid).parent()  # which was told where its cluster is, and what lets one in
        assert raylet is not None
        (told,) = (word for word in raylet.cmdline() if word.startswith("--gcs-address="))
        access = {key: value for key, value in raylet.environ().items() if key.startswith("RAY_AUTH")}
        command = [sys.executable, str(REDEPLOY), told.partition("=")[2], str(spec), *applications]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **access})
        assert done.returncode == 0, done.stderr

    return served_anew


def given_or_running(
    request: pytest.FixtureRequest, spec: Path, environment: Mapping[str, str] | None = None
) -> AbstractContextManager[Cluster]:
    url = request.config.getoption("--cluster-url")
    return nullcontext(Cluster(url, load_spec(spec), spec.name)) if url else running(spec, environment)


@contextmanager
def running(spec: Path, environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """`heliostat serve` on that spec; afterwards nothing that it started is left."""
    port = free_port()
    server = ServeProcess(str(spec), "--port", str(port), environment=environment)
    try:
        server.wait_for("ready: http://", START_S)
        yield Cluster(f"http://127.0.0.1:{port}", load_spec(spec), spec.name)
        assert server.interrupt() == 0, server.output
        assert server.left_behind() == [], "Ctrl-C stops everything that it started"
    finally:
        server.kill()


@pytest.fixture(scope="session", params=["shm", "nixl", "nccl"])
def transport_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster for each transport: the same spec but for that word, and a directory of its own."""
    if url := request.config.getoption("--cluster-url"):
        transport = httpx.get(f"{url}/status", timeout=10).json()["pools"][0]["replicas"][0]["handoffs"]
        if transport and transport[0]["transport"] != request.param:
            pytest.skip("the cluster at --cluster-url runs over another transport")
        told = load_spec(TRANSPORT_SPEC)
        transfer = told.transfer.model_copy(update={"transport": request.param})
        yield Cluster(url, told.model_copy(update={"transfer": transfer}), f"{request.param} at {url}")
        return
    folder = tmp_path_factory.mktemp("transport")
    text = TRANSPORT_SPEC.read_text()
    choice = DECODE_CHOICE[request.param]
    text = text.replace(
        "transport: shm", f"transport: {request.param}, decode_choice: {choice}, directory: {folder}/kv"
    )
    text = text.replace("../../examples", str(QUICKSTART.parent))
    spec = folder / f"{request.param}.yaml"
    spec.write_text(text)
    with running(spec) as started:
        yield started


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncOpenAI]:
    """OpenAI's own client, of the cluster that the test uses."""
    names = ("transport_cluster", "modules_cluster", "qsun_cluster", "upgrade_cluster")
    name = next((name for name in names if name in request.fixturenames), "cluster")
    cluster: Cluster = request.getfixturevalue(name)
    url = f"{cluster.url}/v1"
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


class SimStream:
    """One streamed completion as its client sees it; `read` takes it to its end, however that comes."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.tokens: defaultdict[int, list[int]] = defaultdict(list)
        self.finished: set[int] = set()
        self.error: dict[str, object] | None = None
        self.done = self.broken = False

    async def read(self) -> "SimStream":
        try:
            async for line in self.response.aiter_lines():
                self._take(line.removeprefix("data: "))
        except (httpx.RemoteProtocolError, httpx.ReadError):
            self.broken = True
        return self

    def _take(self, data: str) -> None:
        if not data.startswith("{"):
            self.done |= data == "[DONE]"
            return
        event = json.loads(data)
        self.error = self.error or event.get("error")
        for choice in event.get("choices", ()):
            self.tokens[choice["index"]] += choice["token_ids"] or []
            if choice["finish_reason"]:
                self.finished.add(choice["index"])


class SimClient:
    """Completions of the sim cluster, and what its engines must answer."""

    def __init__(self, cluster: Cluster, http: httpx.AsyncClient, stack: AsyncExitStack) -> None:
        self.cluster, self.http, self._stack = cluster, http, stack

    def expected(self, model: str, prompt: list[int], num_tokens: int, index: int = 0) -> list[int]:
        """The oracle (`sim_tokens.expected_tokens`), for the `index`-th of n sequences."""
        spec = self.cluster.spec
        route, dtype = spec.models[model], spec.family.dtype
        weights = (spec.prefill[route.prefill].weights, spec.decode[route.decode].weights)
        state = first_state(prompt, *(kv_domain(read_module(Path(each)), dtype) for each in weights), index)
        tokens: list[int] = []
        for _ in range(num_tokens):
            tokens.append(next_token(state, DEFAULT_VOCAB))
            state = extend(state, tokens[-1])
        return tokens

    async def post(self, **body: object) -> httpx.Response:
        return await self.http.post("/v1/completions", json={**ASKED, **body})

    async def open(self, headers: dict[str, str] | None = None, **body: object) -> SimStream:
        """The stream once it has a status; it closes with the test."""
        body = {**ASKED, **body, "stream": True}
        response = self.http.stream("POST", "/v1/completions", json=body, headers=headers)
        return SimStream(await self._stack.enter_async_context(response))

    async def status(self) -> ClusterStatus:
        return ClusterStatus.model_validate_json((await self.http.get("/status")).content)

    async def replicas(self, role: Role, pool: str) -> list[ReplicaStatus]:
        pools = (await self.status()).pools
        return [r for p in pools if (p.role, p.name) == (role, pool) for r in p.replicas]

    async def until(self, condition: Callable[[], Awaitable[bool]], within_s: float = 60) -> None:
        async with asyncio.timeout(within_s):
            while not await condition():
                pass


@pytest.fixture
async def sim(sim_cluster: Cluster) -> AsyncIterator[SimClient]:
    async with AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=None)
        http = httpx.AsyncClient(base_url=sim_cluster.url, timeout=60, limits=limits)
        yield SimClient(sim_cluster, await stack.enter_async_context(http), stack)


@pytest.fixture(scope="session")
def sim_client() -> Callable[[str, Spec, AsyncExitStack], Awaitable[SimClient]]:
    """Makes the client of a cluster that a test has started itself."""

    async def make(url: str, spec: Spec, stack: AsyncExitStack) -> SimClient:
        http = httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None))
        return SimClient(Cluster(url, spec, ""), await stack.enter_async_context(http), stack)

    return make


@pytest.fixture
def served_accuracy(client: AsyncOpenAI) -> Callable[[str, str], Awaitable[float]]:
    """The share of a task's 200 held-out samples that a served model answers exactly, asked 16 at a time."""

    async def measure(model: str, task: str) -> float:
        gate, samples = asyncio.Semaphore(16), heldout(task)

        async def right(sample: dict[str, str]) -> bool:
            async with gate:
                answer = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": sample["prompt"]}],
                    temperature=0,
                    max_tokens=64,
                )
            return answer.choices[0].message.content == sample["response"]

        assert len(samples) >= 200
        return sum(await asyncio.gather(*map(right, samples))) / len(samples)

    return measure


def heldout(task: str) -> list[dict[str, str]]:
    lines = (QUICKSTART / "heldout" / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
