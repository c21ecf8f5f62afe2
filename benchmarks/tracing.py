"""What spans and request lines cost: CPU time per request in a router, and per leg in a replica.

    python -m benchmarks.tracing                                  # a table
    python -m benchmarks.tracing --out benchmarks/results/tracing.json

The router's part is the pipeline over pools that answer at once, with and without `router.requests` around
it; a replica's part is `deployments.replica_spans` around nothing. Spans go over OTLP/HTTP to a collector in
another process, lines into a file. CPU time is the whole process's, the exporter's thread included, after all
spans are sent. Modes take turns; each figure is a mode's median over the rounds, less that of `off`.
"""

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from deployments.replica_spans import ReplicaSpans
from heliostat.wire import (
    DecodeRequest,
    Load,
    PrefillRequest,
    PrefillResult,
    Role,
    Ticket,
    TokenDelta,
    TokenFrame,
)
from router.pipeline import GenerateRequest, Pipeline
from router.request_log import RequestLog
from router.requests import RequestDesk
from router.route import Route
from router.route_notes import RouteNotes
from router.trace import Trace
from router.tracing.context import TraceContext
from router.tracing.export import SpanSink, resource, sampler

REQUESTS = 3000
OUTPUT_TOKENS = 64
PROMPT = tuple(range(64))
LOAD = Load("decode-shared#x1y2z3a4", 0, 0, 0, 0.0, 1)
FRAMES = tuple(
    TokenFrame((TokenDelta(0, (n,), None, "length" if n == 63 else None, None),), n == 63, LOAD, None)
    for n in range(OUTPUT_TOKENS)
)
TICKET = Ticket("t", "shm", "", "311d8f67a44a1978", "", 63, 2, 64, "", 0.0)
PREFILLED = PrefillResult(TICKET, LOAD, 32, 0.5)
HEADERS = {"x-request-id": "0b8e2f3c-4c7e-4b0e-9a61-0d8a3b1c7a52"}
ROUTER_MODES = ("off", "lines", "unsampled", "sampled", "sampled and lines")
REPLICA_MODES = ("off", "sampled")
SPANS_KEPT = 16
"""Of a request, at most: the queue must hold a whole round, which comes faster than it can be sent."""


class Pools:
    """Both pools; everything is there at once. Traced legs are noted as a request router does it."""

    def __init__(self, notes: RouteNotes) -> None:
        self._notes = notes

    def _note(self, request: PrefillRequest | DecodeRequest) -> None:
        if request.traceparent.endswith("-01"):
            self._notes.chosen(
                request.request_id, LOAD.replica, 8, 12.5, "0.0 ms wait, 64 tokens at 20.00 ms"
            )

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        self._note(request)
        return PREFILLED

    async def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        yield PREFILLED

    async def release(self, ticket: Ticket) -> None:
        """Nothing is kept."""

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        return 0

    async def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        self._note(request)
        for frame in FRAMES:
            yield frame


class Door:
    """Lets everybody in, and is the slot, too."""

    @asynccontextmanager
    async def slot(self, *_: object) -> AsyncGenerator["Door", None]:
        yield self

    def served(self, tokens: int) -> None:
        """Fine."""

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        return OUTPUT_TOKENS


class Collector(BaseHTTPRequestHandler):
    """Takes everything and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _collect(port: Connection) -> None:
    server = HTTPServer(("127.0.0.1", 0), Collector)
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def collector() -> Iterator[str]:
    """The URL of one in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_collect, args=(there,), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{here.recv()}/v1/traces"
    process.terminate()
    process.join()


class _Lines(logging.Formatter):
    """A record with its fields, as Serve's JSON lines have them."""

    _standard = frozenset(logging.makeLogRecord({}).__dict__)

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: value for key, value in record.__dict__.items() if key not in self._standard}
        return json.dumps({"asctime": self.formatTime(record), "message": record.getMessage(), **fields})


@contextmanager
def _sink(url: str, ratio: float) -> Iterator[SpanSink]:
    """Sends everything before it ends."""
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=url), max_queue_size=REQUESTS * SPANS_KEPT)
    yield SpanSink(processor, resource("heliostat-router", "router#0"), sampler(ratio))
    processor.force_flush()
    processor.shutdown()  # type: ignore[no-untyped-call]


async def _requests(desk: RequestDesk | None, notes: RouteNotes) -> None:
    pools = Pools(notes)
    pipeline = Pipeline({"m": Route(pools, pools)}, Door())
    for number in range(REQUESTS):
        trace = Trace(started_s=time.monotonic())
        opened = desk.begin("/v1/completions", HEADERS) if desk else None
        if opened is not None:
            opened.prompt(trace)
        request = GenerateRequest(f"r{number}", "m", PROMPT, b"", trace, max_tokens=OUTPUT_TOKENS)
        async with aclosing(pipeline.generate(request)) as frames:
            async for _ in frames:
                pass
        if desk is not None and opened is not None:
            opened.ended()
            desk.end(opened, 200)


def _router_round(mode: str, url: str) -> float:
    """CPU microseconds of one request."""
    notes = RouteNotes()
    log = RequestLog("json") if "lines" in mode else None
    begin = time.process_time()
    if "sampled" in mode:
        with _sink(url, 0.0 if mode == "unsampled" else 1.0) as sink:
            asyncio.run(_requests(RequestDesk(sink, log, notes.take), notes))
    else:
        asyncio.run(_requests(RequestDesk(None, log, notes.take) if log else None, notes))
    return (time.process_time() - begin) / REQUESTS * 1e6


def _legs(spans: ReplicaSpans, traceparent: str) -> None:
    prefill = PrefillRequest("r-prefill-1", "m", PROMPT[:-1], traceparent=traceparent)
    decode = DecodeRequest("r-decode-1", "m", PROMPT, TICKET, b"", traceparent=traceparent)
    for _ in range(REQUESTS):
        with spans.leg(Role.PREFILL, prefill) as leg:
            spans.below(leg, prefill)
            if leg is not None:
                leg.prefilled(PREFILLED)
        with spans.leg(Role.DECODE, decode) as leg:
            spans.below(leg, decode)
            spans.first(leg, FRAMES[0])


def _replica_round(mode: str, url: str) -> float:
    """CPU microseconds of one leg."""
    begin = time.process_time()
    if mode == "off":
        _legs(ReplicaSpans(None, LOAD.replica), "")
    else:
        with _sink(url, 1.0) as sink:
            _legs(ReplicaSpans(sink, LOAD.replica), TraceContext(1, 2, True).traceparent)
    return (time.process_time() - begin) / (2 * REQUESTS) * 1e6


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of CPU time. `off` are whole requests and legs; the others are what comes on top."""

    requests: int
    rounds: int
    cpus: int
    router_off_us: float
    lines_us: float
    unsampled_us: float
    sampled_us: float
    sampled_and_lines_us: float
    replica_off_us: float
    replica_sampled_us: float


def measure(rounds: int) -> Costs:
    """All modes in turn, so often; a first round warms up and is dropped."""
    router: dict[str, list[float]] = {mode: [] for mode in ROUTER_MODES}
    replica: dict[str, list[float]] = {mode: [] for mode in REPLICA_MODES}
    with collector() as url, tempfile.TemporaryDirectory() as folder, _log_file(Path(folder) / "lines"):
        for _ in range(rounds + 1):
            for mode, figures in router.items():
                figures.append(_router_round(mode, url))
            for mode, figures in replica.items():
                figures.append(_replica_round(mode, url))
    off_us, *others_us = (median(router[mode][1:]) for mode in ROUTER_MODES)
    lines_us, unsampled_us, sampled_us, both_us = (round(us - off_us, 1) for us in others_us)
    replica_off_us, replica_us = (median(replica[mode][1:]) for mode in REPLICA_MODES)
    return Costs(
        requests=REQUESTS,
        rounds=rounds,
        cpus=os.cpu_count() or 0,
        router_off_us=round(off_us, 1),
        lines_us=lines_us,
        unsampled_us=unsampled_us,
        sampled_us=sampled_us,
        sampled_and_lines_us=both_us,
        replica_off_us=round(replica_off_us, 2),
        replica_sampled_us=round(replica_us - replica_off_us, 1),
    )


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path)
    handler.setFormatter(_Lines())
    logger = logging.getLogger("router.request_log")
    logger.addHandler(handler)
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield
    logger.setLevel(before[0])
    logger.propagate = before[1]
    logger.removeHandler(handler)
    handler.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    costs = asdict(measure(args.rounds))
    for name, value in costs.items():
        print(f"{name:22} {value}")
    if args.out is not None:
        args.out.write_text(json.dumps(costs, indent=2) + "\n")


if __name__ == "__main__":
    main()
