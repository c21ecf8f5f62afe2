"""W3C trace context, held against OpenTelemetry's own reader."""

import random

import pytest
from opentelemetry.context import Context
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.tracing.context import TraceContext, new_span_id, new_trace_id, parse_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def theirs(header: str) -> tuple[int, int, bool] | None:
    context = TraceContextTextMapPropagator().extract({"traceparent": header}, Context())
    span = get_current_span(context).get_span_context()
    return (span.trace_id, span.span_id, span.trace_flags.sampled) if span.is_valid else None


def ours(header: str) -> tuple[int, int, bool] | None:
    found = parse_context(header)
    return (found.trace_id, found.span_id, found.sampled) if found else None


@pytest.mark.parametrize(
    ("header", "there"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", True),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE[:-1]}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_headers_are_read_as_opentelemetry_reads_them(header: str, there: bool) -> None:
    assert ours(header) == theirs(header)
    assert (ours(header) is not None) is there


def test_what_is_written_is_read_back_by_opentelemetry() -> None:
    rng = random.Random(1)
    for _ in range(100):
        context = TraceContext(rng.getrandbits(128) | 1, rng.getrandbits(60) | 1, rng.random() < 0.5)
        assert theirs(context.traceparent) == (context.trace_id, context.span_id, context.sampled)


def test_a_child_is_of_the_same_trace_with_what_vendors_keep() -> None:
    context = parse_context(f"00-{TRACE}-{SPAN}-01", "vendor=x,other=y")
    assert context is not None
    child = context.child()
    assert (child.trace_id, child.sampled, child.state) == (int(TRACE, 16), True, "vendor=x,other=y")
    assert child.span_id != context.span_id


def test_a_tracestate_that_is_too_long_is_left_out() -> None:
    context = parse_context(f"00-{TRACE}-{SPAN}-01", "v=" + "x" * 600)
    assert context is not None and context.state == ""


def test_new_ids_are_valid() -> None:
    assert all(0 < new_trace_id() < 2**128 and 0 < new_span_id() < 2**64 for _ in range(100))
