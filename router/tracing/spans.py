"""Spans as plain values: from a request that is over to the tree that tracing tools draw.

    POST /v1/completions            server    the HTTP request
      text_completion home          internal  one prompt's way through the pipeline
        admit                       internal
        prefill                     client    a leg, once per attempt
          route                     internal  until its replica was chosen
        decode                      client
          route                     internal

Below a leg, its replica hangs its own (`deployments.replica_spans`). Nothing here is text of a client's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from heliostat.wire import Role
from router.route_notes import Routed
from router.trace import Leg, Trace
from router.tracing.context import TraceContext

Attribute = str | int | float | bool

OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}
"""Paths whose requests are traced and logged, with their names in the GenAI conventions."""


class Kind(StrEnum):
    """OpenTelemetry's kinds, as far as they occur."""

    SERVER = "SERVER"
    CLIENT = "CLIENT"
    INTERNAL = "INTERNAL"


@dataclass(slots=True)
class Span:
    """One span that is over. Times are seconds, monotonic; `failure` is empty for a success."""

    name: str
    kind: Kind
    context: TraceContext
    parent: TraceContext | None
    start_s: float
    end_s: float
    attributes: dict[str, Attribute] = field(default_factory=dict)
    failure: str = ""


@dataclass(slots=True)
class HttpRequest:
    """One HTTP request to a path in `OPERATIONS`, and what became of the prompts in it.

    `status` is 0 when the client left before there was one. Without `context`, no spans are made;
    `trace_id` is the client's then, if it named one.
    """

    path: str
    request_id: str
    started_s: float
    context: TraceContext | None = None
    parent: TraceContext | None = None
    trace_id: str = ""
    model: str = ""
    status: int = 0
    ended_s: float = 0.0
    traces: list[Trace] = field(default_factory=list)


def request_spans(request: HttpRequest, route_of: Callable[[str], Routed | None]) -> Iterator[Span]:
    """All spans of a request that is over; `route_of` tells how a leg found its replica."""
    if request.context is None or not request.context.sampled:
        return
    attributes: dict[str, Attribute] = {
        "http.request.method": "POST",
        "http.route": request.path,
        "heliostat.request_id": request.request_id,
    }
    failure = ""
    if request.status:
        attributes["http.response.status_code"] = request.status
    if request.status >= 500:
        attributes["error.type"] = failure = str(request.status)
    yield Span(
        f"POST {request.path}",
        Kind.SERVER,
        request.context,
        request.parent,
        request.started_s,
        request.ended_s,
        attributes,
        failure,
    )
    for trace in request.traces:
        if trace.context is not None:
            yield _prompt_span(trace, trace.context, request)
            yield from _admit_span(trace, trace.context)
            for leg in trace.legs:
                yield from _leg_spans(leg, trace.context, trace.ended_s, route_of(leg.leg_id))


def _prompt_span(trace: Trace, context: TraceContext, request: HttpRequest) -> Span:
    operation = OPERATIONS[request.path]
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "heliostat",
        "gen_ai.request.model": trace.model,
        "gen_ai.usage.input_tokens": trace.prompt_tokens,
        "gen_ai.usage.output_tokens": trace.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": trace.cached_tokens,
        "heliostat.request_id": request.request_id,
        "heliostat.outcome": trace.outcome,
        "heliostat.attempts": trace.attempts,
        "heliostat.handoff.bytes": trace.handoff_bytes,
    }
    if trace.first_token_s:
        attributes["gen_ai.response.time_to_first_chunk"] = trace.first_token_s - trace.started_s
    if trace.prefill_replica:
        attributes["heliostat.prefill.replica"] = trace.prefill_replica
    if trace.decode_replica:
        attributes["heliostat.decode.replica"] = trace.decode_replica
    if trace.error_type:
        attributes["error.type"] = trace.error_type
    name = f"{operation} {trace.model}"
    return Span(
        name,
        Kind.INTERNAL,
        context,
        request.context,
        trace.entered_s,
        trace.ended_s,
        attributes,
        trace.error_type,
    )


def _admit_span(trace: Trace, context: TraceContext) -> Iterator[Span]:
    """Waiting for a place; a request that got none ended in it."""
    if trace.entered_s:
        end_s = trace.admitted_s or trace.ended_s
        failure = "" if trace.admitted_s else trace.error_type
        yield Span("admit", Kind.INTERNAL, context.child(), context, trace.entered_s, end_s, {}, failure)


def _leg_spans(leg: Leg, parent: TraceContext, request_end_s: float, routed: Routed | None) -> Iterator[Span]:
    if leg.context is None:
        return
    attributes: dict[str, Attribute] = {"heliostat.leg_id": leg.leg_id, "heliostat.attempt": leg.attempt}
    if leg.replica:
        attributes["heliostat.replica"] = leg.replica
    if leg.role is Role.PREFILL:
        attributes["heliostat.kv_domain"] = leg.domain
        attributes["heliostat.cached_tokens"] = leg.cached_tokens
        attributes["heliostat.handoff.bytes"] = leg.handoff_bytes
        attributes["heliostat.handoff.save_ms"] = leg.copy_ms
    else:
        attributes["heliostat.handoff.load_ms"] = leg.copy_ms
        attributes["heliostat.output_tokens"] = leg.output_tokens
    if leg.error_type:
        attributes["error.type"] = leg.error_type
    if leg.cut:
        attributes["heliostat.cut"] = True
    end_s = leg.ended_s or request_end_s
    yield Span(str(leg.role), Kind.CLIENT, leg.context, parent, leg.started_s, end_s, attributes, leg.failure)
    if routed is not None:
        yield Span(
            "route",
            Kind.INTERNAL,
            leg.context.child(),
            leg.context,
            leg.started_s,
            max(leg.started_s, routed.chosen_s),
            {
                "heliostat.replica": routed.replica,
                "heliostat.route.candidates": routed.candidates,
                "heliostat.route.cost": routed.cost,
                "heliostat.route.reason": routed.reason,
                "heliostat.route.choices": routed.choices,
            },
        )
