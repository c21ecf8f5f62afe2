"""What the router costs: a decision, a first token, a token; with engines that cost nothing, peers beside it.

    python benchmarks/router.py [--rounds 3] [--peers CACHE] [--json PATH]

    decision     the policies' own time over 8, 100 and 1,000 replicas with a prefix index of 1 M blocks
    first token  at one stream, minus what the same engine takes when it is called directly
    tokens       through the whole stack with 1, 32 and 256 streams, load generator on the same machine
    open         4,000 streams at a time, and how late the router's event loop runs meanwhile

Heliostat runs as `heliostat serve benchmarks/specs/router.yaml` does: HAProxy, one router, one prefill and
one decode replica. The peers have vLLM's own API server behind them, with a stand-in engine. Both engines
give every request a token each millisecond where throughput is measured, and both merge tokens of a stream
whose reader is behind, as vLLM does; so events per second stand beside tokens per second.
"""

import argparse
import asyncio
import gc
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
from rich.console import Console

from benchmarks.report import RESULTS, Metric, make_report, render, write_json
from benchmarks.router_decision import measure
from benchmarks.router_direct import direct_first_token_ms
from benchmarks.router_load import LoadResult, Target, load_from_outside
from benchmarks.router_peers import (
    RAY_SERVE_LLM_DIRECT,
    RAY_SERVE_LLM_UNBATCHED,
    SGLANG_ROUTER,
    VLLM_ROUTER,
    Backend,
    Peer,
    start_standin,
    stop,
    wait_ready,
)
from benchmarks.server import free_port, running_cluster
from heliostat.errors import HeliostatError
from heliostat.specfile import load_spec
from heliostat.status import ClusterStatus

SPEC = Path(__file__).parent / "specs" / "router.yaml"
PEERS = (VLLM_ROUTER, SGLANG_ROUTER, RAY_SERVE_LLM_UNBATCHED, RAY_SERVE_LLM_DIRECT)
STEP_MS = 1.0
STREAMS = (1, 32, 256)
MAX_TOKENS = 128
REQUESTS = {1: 20, 32: 8, 256: 2}
"""Requests of each stream: a few seconds for every load."""

OPEN_STREAMS = 4000
INDEX_BLOCKS = 1_000_000

DECISION_GOAL_US = 200.0
FIRST_TOKEN_GOAL_MS = 5.0
TOKENS_GOAL = 12_000.0

Figures = dict[str, list[float]]
"""Every round's value, by system and figure: `vllm-router/32 streams/tok_per_s`."""


def main() -> None:
    """Measure, print a table, write the result. Raises HeliostatError."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--peers", type=Path, default=Path(".venv-peers"), help="where their environments are kept"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "router.json")
    args = parser.parse_args()

    metrics = _decisions(args.rounds)
    figures: Figures = defaultdict(list)
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", flush=True)
        _heliostat(figures)
        with _standin() as backend:
            _load("vLLM API server", figures, Target(backend.urls[0], backend.model, max_tokens=MAX_TOKENS))
            for peer in PEERS:
                _peer(peer, args.peers, backend, figures)
    metrics |= _metrics(figures)
    report = make_report(args.rounds, metrics)
    write_json(report, args.json)
    render(report, Console(width=140), title="The router's own cost", value="Heliostat", peer="peer")


def _decisions(rounds: int) -> dict[str, Metric]:
    gc.freeze()  # as the router does at its start (`deployments.ingress`)
    metrics = {}
    for replicas in (8, 100, 1000):
        times = measure(replicas, INDEX_BLOCKS, rounds)
        print(f"decision over {replicas} replicas: {times}", flush=True)
        for leg in ("prefill", "decode"):
            for quantile, goal in (("p50", None), ("p99", DECISION_GOAL_US)):
                value: float = getattr(times, f"{leg}_{quantile}")
                key = f"decision_{leg}_{replicas}_replicas_{quantile}"
                metrics[key] = Metric(value=value, unit="µs", goal=goal, better="lower")
    return metrics


def _heliostat(figures: Figures) -> None:
    with running_cluster(SPEC) as url:
        # The first requests pay for connections and imports.
        load_from_outside(Target(url, "free", max_tokens=8), streams=8, requests=20, seed="warm")
        one = load_from_outside(Target(url, "free", max_tokens=8), streams=1, requests=100)
        _check("Heliostat", one)
        direct = asyncio.run(direct_first_token_ms(load_spec(SPEC), 200, 100))
        figures["Heliostat/direct/ttft"].append(direct)
        figures["Heliostat/1 stream/ttft"].append(one.ttft_p50_ms or 0.0)
        _load("Heliostat", figures, Target(url, "paced", max_tokens=MAX_TOKENS))
        many = load_from_outside(Target(url, "paced", max_tokens=16), streams=OPEN_STREAMS, requests=1)
        status = ClusterStatus.model_validate_json(httpx.get(f"{url}/status", timeout=30).content)
        figures["Heliostat/open/failures"].append(sum(many.failures.values()))
        figures["Heliostat/open/most"].append(many.most_open)
        figures["Heliostat/open/wall"].append(many.wall_s)
        figures["Heliostat/open/stall"].append(status.router.loop_stall_p99_ms if status.router else 0.0)
        print(f"Heliostat: {OPEN_STREAMS} streams: {many}", flush=True)


@contextmanager
def _standin() -> Iterator[Backend]:
    weights = Path(load_spec(SPEC).family.base)
    with tempfile.TemporaryDirectory() as folder:
        port, log = free_port(), Path(folder) / "standin.log"
        process = start_standin("base", weights, port, log, step_ms=STEP_MS, stats=False)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(url, "base", process, log)
            yield Backend((url,), "base", weights)
        finally:
            stop(process)


def _peer(peer: Peer, cache: Path, backend: Backend, figures: Figures) -> None:
    with tempfile.TemporaryDirectory() as folder:
        port, log = free_port(), Path(folder) / "peer.log"
        process = peer.start(cache, backend, port, log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_ready(url, backend.model, process, log)
            _load(peer.name, figures, Target(url, backend.model, max_tokens=MAX_TOKENS))
        finally:
            stop(process)


def _load(system: str, figures: Figures, target: Target) -> None:
    for streams in STREAMS:
        result = load_from_outside(target, streams=streams, requests=REQUESTS[streams])
        _check(system, result)
        seconds = result.tokens / result.tok_per_s if result.tok_per_s else 1.0
        figures[f"{system}/{streams} streams/tok_per_s"].append(result.tok_per_s)
        figures[f"{system}/{streams} streams/events_per_s"].append(result.events / seconds)
        figures[f"{system}/{streams} streams/ttft"].append(result.ttft_p50_ms or 0.0)
        print(
            f"{system}, {streams} streams: {result.tok_per_s:,.0f} tok/s, "
            f"{result.events / seconds:,.0f} events/s, TTFT {result.ttft_p50_ms or 0.0:.1f} ms, "
            f"load generator {result.cpu_share:.2f} cores",
            flush=True,
        )


def _check(system: str, result: LoadResult) -> None:
    if result.failures:
        raise HeliostatError(f"{system}: requests failed: {result.failures}")


def _metrics(figures: Figures) -> dict[str, Metric]:
    def of(key: str) -> float:
        return median(figures[key])

    def lower(value: float, unit: str, goal: float | None = None, peer: float | None = None) -> Metric:
        return Metric(value=value, unit=unit, goal=goal, better="lower", peer=peer)

    added = of("Heliostat/1 stream/ttft") - of("Heliostat/direct/ttft")
    metrics = {
        "ttft_added_1_stream": lower(added, "ms", FIRST_TOKEN_GOAL_MS),
        "open_streams_failures": lower(of("Heliostat/open/failures"), "streams", 0.0),
        "open_streams_at_a_time": Metric(
            value=of("Heliostat/open/most"), unit="streams", goal=OPEN_STREAMS, better="higher"
        ),
        "open_streams_loop_stall_p99": lower(of("Heliostat/open/stall"), "ms"),
    }
    for streams in STREAMS:
        ours, rust = (of(f"{name}/{streams} streams/tok_per_s") for name in ("Heliostat", VLLM_ROUTER.name))
        goal = max(rust, TOKENS_GOAL) if streams == 32 else rust
        metrics[f"tokens_{streams}_streams"] = Metric(
            value=ours, unit="tok/s", goal=goal, better="higher", peer=rust
        )
    # Every figure of every system, as it was measured; goals are above.
    for key in figures:
        system, load, figure = key.split("/")
        unit, better = _UNITS.get(figure, ("", "lower"))
        if unit:
            name = f"{system}_{load}_{figure}".lower().replace(" ", "_").replace(",", "")
            metrics[name] = Metric(
                value=of(key), unit=unit, better="higher" if better == "higher" else "lower"
            )
    return metrics


_UNITS = {
    "tok_per_s": ("tok/s", "higher"),
    "events_per_s": ("events/s", "higher"),
    "ttft": ("ms", "lower"),
}

if __name__ == "__main__":
    main()
