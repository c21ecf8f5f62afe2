"""To OpenTelemetry: the one file that imports its SDK, and only where spans are made.

Spans are made of noted times when their request is over, so the SDK's tracer, which keeps spans open, has
nothing to do here: sampler, batching and exporter are the SDK's, with the OTEL_* variables that they read.
"""

import time
from collections.abc import Callable, Iterable

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBasedTraceIdRatio, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.span import TraceState
from opentelemetry.trace.status import Status, StatusCode

import heliostat
from router.tracing.context import TraceContext, new_span_id, new_trace_id
from router.tracing.spans import Kind, Span

_SCOPE = InstrumentationScope("heliostat", heliostat.__version__)
_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT, Kind.INTERNAL: SpanKind.INTERNAL}
_OK = Status()
_ROOT = Context()


class SpanSink:
    """Where one process's spans go."""

    def __init__(
        self,
        processor: SpanProcessor,
        resource: Resource,
        sampler: Sampler,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processor = processor
        self._resource = resource
        self._sampler = sampler
        self._wall_clock = wall_clock
        self._clock = clock

    def begin(self, parent: TraceContext | None, name: str) -> TraceContext:
        """A request's own span, sampled or not; a new trace without a parent."""
        trace_id = parent.trace_id if parent else new_trace_id()
        context = _ROOT
        if parent is not None:
            context = set_span_in_context(NonRecordingSpan(_span_context(parent, remote=True)), _ROOT)
        result = self._sampler.should_sample(context, trace_id, name, SpanKind.SERVER)
        state = result.trace_state.to_header() if result.trace_state else ""
        return TraceContext(trace_id, new_span_id(), result.decision is Decision.RECORD_AND_SAMPLE, state)

    def emit(self, spans: Iterable[Span]) -> None:
        """Queue them; never waits, and drops what does not fit (OTEL_BSP_MAX_QUEUE_SIZE)."""
        offset_s = self._wall_clock() - self._clock()
        for span in spans:
            self._processor.on_end(self._readable(span, offset_s))

    def close(self) -> None:
        """Send what is queued, for some seconds at most (OTEL_EXPORTER_OTLP_TIMEOUT)."""
        self._processor.shutdown()

    def _readable(self, span: Span, offset_s: float) -> ReadableSpan:
        parent = span.parent
        return ReadableSpan(
            span.name,
            _span_context(span.context),
            _span_context(parent, remote=span.kind is Kind.SERVER) if parent else None,
            self._resource,
            span.attributes,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.failure) if span.failure else _OK,
            start_time=int((span.start_s + offset_s) * 1e9),
            end_time=int((max(span.start_s, span.end_s) + offset_s) * 1e9),
            instrumentation_scope=_SCOPE,
        )


def open_sink(url: str, sample_ratio: float | None, service: str, instance: str) -> SpanSink:
    """Over OTLP/HTTP, in batches (OTEL_BSP_*), from a thread of its own."""
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=url))
    return SpanSink(processor, resource(service, instance), sampler(sample_ratio))


def resource(service: str, instance: str) -> Resource:
    """Who speaks; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come before our names."""
    ours = {
        "service.name": service,
        "service.namespace": "heliostat",
        "service.instance.id": instance,
        "service.version": heliostat.__version__,
    }
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def sampler(ratio: float | None) -> Sampler:
    """A client's decision first; then this part of all traces, or what OTEL_TRACES_SAMPLER says."""
    if ratio is not None:
        return ParentBasedTraceIdRatio(ratio)
    return TracerProvider(shutdown_on_exit=False).sampler


def _span_context(context: TraceContext, remote: bool = False) -> SpanContext:
    return SpanContext(
        context.trace_id,
        context.span_id,
        remote,
        TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT),
        TraceState.from_header([context.state]) if context.state else None,
    )
