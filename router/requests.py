"""HTTP requests that are traced or logged, each from its first byte until it and its prompts are over.

Where neither is asked for, none of this is there. Nothing happens per token.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Protocol

from router.route_notes import Routed
from router.trace import Trace
from router.tracing.context import TRACEPARENT, TRACESTATE, TraceContext, parse_context
from router.tracing.spans import HttpRequest, Span, request_spans

REQUEST_ID = "x-request-id"

current_request: ContextVar["OpenRequest | None"] = ContextVar("current_request", default=None)
"""The HTTP request that is being served here; None where requests are neither traced nor logged."""


class Sink(Protocol):
    """Where spans go (`router.tracing.export.SpanSink`)."""

    def begin(self, parent: TraceContext | None, name: str) -> TraceContext:
        """A request's own span, sampled or not."""

    def emit(self, spans: Iterable[Span]) -> None:
        """Never waits."""


class Log(Protocol):
    """Where finished requests are written down (`router.request_log`)."""

    def write(self, request: HttpRequest) -> None:
        """One line."""


class OpenRequest:
    """One HTTP request and the prompts in it. A prompt may outlive it: its client is gone, its legs end."""

    def __init__(self, request: HttpRequest, desk: "RequestDesk") -> None:
        self.request = request
        self._desk = desk
        self._open = 1

    def prompt(self, trace: Trace) -> None:
        """The pipeline gets one of its prompts; `ended` must follow."""
        self._open += 1
        trace.context = self.request.context.child() if self.request.context else None
        self.request.traces.append(trace)

    def ended(self) -> None:
        """One of its prompts, or the request itself, is over. With the last one it is reported."""
        self._open -= 1
        if not self._open:
            self._desk.report(self.request)


class RequestDesk:
    """One router's requests. `route_of` tells, once, how a leg found its replica."""

    def __init__(
        self,
        sink: Sink | None,
        log: Log | None,
        route_of: Callable[[str], Routed | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._log = log
        self._route_of = route_of
        self._clock = clock

    def begin(self, path: str, headers: Mapping[str, str]) -> OpenRequest:
        """A request's headers are here; their names are in lower case."""
        request = HttpRequest(path, headers.get(REQUEST_ID, ""), self._clock())
        parent = parse_context(headers.get(TRACEPARENT, ""), headers.get(TRACESTATE, ""))
        if self._sink is not None:
            request.context, request.parent = self._sink.begin(parent, f"POST {path}"), parent
        known = request.context or parent
        request.trace_id = known.trace_hex if known else ""
        return OpenRequest(request, self)

    def end(self, opened: OpenRequest, status: int) -> None:
        """Its answer is out; or its client is gone, perhaps before there was a status (0)."""
        opened.request.status, opened.request.ended_s = status, self._clock()
        opened.ended()

    def report(self, request: HttpRequest) -> None:
        """Everything about it is over."""
        if self._log is not None:
            self._log.write(request)
        if self._sink is not None and request.context is not None and request.context.sampled:
            self._sink.emit(request_spans(request, self._route_of))
