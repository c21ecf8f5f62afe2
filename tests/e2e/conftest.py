"""Clusters of real vLLM CPU engines, and one of `sim` engines, started as a user would start them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from pathlib import Path

import httpx
import psutil
import pytest
from openai import AsyncOpenAI
from served_cluster import Cluster, running
from sim_client import SimClient, sim_client
from span_collector import Collector

from deployments.cpu_kernels import low_bit_problem
from heliostat.specfile import load_spec

SPEC = Path(__file__).parent / "cluster.yaml"
TRANSPORT_SPEC = Path(__file__).parent / "transport.yaml"
SIM_SPEC = Path(__file__).parent / "sim.yaml"
MODULES_SPEC = Path(__file__).parent / "modules.yaml"
UPGRADE_SPEC = Path(__file__).parent / "upgrade.yaml"
REDEPLOY = Path(__file__).parent / "redeploy.py"
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
DECODE_CHOICE = {"shm": "early", "nixl": "late", "nccl": "early"}
"""Each choice is tried over a transport that keeps KV in files, and over one that keeps it in memory."""


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with given_or_running(request, SPEC) as cluster:
        yield cluster


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


@pytest.fixture
async def sim(sim_cluster: Cluster) -> AsyncIterator[SimClient]:
    async with AsyncExitStack() as stack:
        yield await sim_client(sim_cluster, stack)


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
