"""A collector for a look at spans without a tracing backend: prints every trace as a tree.

    python examples/tracing/collect.py --port 4318

A trace is printed when no span of it has come for `--quiet` seconds. Spans come in batches, from each process
by itself, so this must be longer than their delay (OTEL_BSP_SCHEDULE_DELAY, 5 s by default).
"""

import argparse
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SHOWN = (
    "heliostat.replica",
    "heliostat.attempt",
    "heliostat.outcome",
    "heliostat.cached_tokens",
    "heliostat.handoff.bytes",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "heliostat.output_tokens",
    "heliostat.route.reason",
    "http.response.status_code",
    "error.type",
)
"""Attributes that are printed, by their last part."""


class Traces:
    """Spans by trace, until they are printed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: defaultdict[bytes, list[tuple[str, Span]]] = defaultdict(list)
        self._last_s: dict[bytes, float] = {}

    def add(self, request: ExportTraceServiceRequest) -> None:
        with self._lock:
            for resource in request.resource_spans:
                names = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._spans[span.trace_id].append((names.get("service.name", ""), span))
                        self._last_s[span.trace_id] = time.monotonic()

    def take(self, quiet_s: float) -> list[list[tuple[str, Span]]]:
        """Traces that are whole, as far as one can know."""
        with self._lock:
            over = [key for key, last_s in self._last_s.items() if time.monotonic() - last_s > quiet_s]
            for key in over:
                del self._last_s[key]
            return [self._spans.pop(key) for key in over]


def tree(spans: list[tuple[str, Span]]) -> Iterator[str]:
    """One line per span: when it began, how long it took, what it was."""
    ids = {span.span_id for _, span in spans}
    begin_ns = min(span.start_time_unix_nano for _, span in spans)

    def below(parent: bytes | None, depth: int) -> Iterator[str]:
        children = [
            (service, span)
            for service, span in spans
            if (span.parent_span_id == parent if parent else span.parent_span_id not in ids)
        ]
        for service, span in sorted(children, key=lambda each: each[1].start_time_unix_nano):
            start_ms = (span.start_time_unix_nano - begin_ns) / 1e6
            took_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
            name = "  " * depth + span.name
            yield f"{start_ms:8.1f} {took_ms:8.1f}  {name:30} {service:24} {shown(span)}".rstrip()
            yield from below(span.span_id, depth + 1)

    yield f"trace {spans[0][1].trace_id.hex()}"
    yield f"{'from ms':>8} {'for ms':>8}  {'span':30} {'service':24}"
    yield from below(None, 0)


def shown(span: Span) -> str:
    values = {each.key: each.value for each in span.attributes}
    parts = [
        f"{key.rpartition('.')[2]}={getattr(values[key], values[key].WhichOneof('value'))}"
        for key in SHOWN
        if key in values
    ]
    return ", ".join([*parts, *([f"error: {span.status.message}"] if span.status.message else [])])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=4318)
    parser.add_argument("--quiet", type=float, default=6.0, metavar="SECONDS")
    args = parser.parse_args()
    traces = Traces()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            traces.add(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"waiting for spans at http://127.0.0.1:{args.port}", flush=True)
    while True:
        time.sleep(0.5)
        for spans in traces.take(args.quiet):
            print("\n".join(tree(spans)), flush=True)


if __name__ == "__main__":
    main()
