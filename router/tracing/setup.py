"""Whether spans are made at all, as spec and environment say; without OpenTelemetry's packages until then."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from heliostat.errors import HeliostatError
from heliostat.spec import Traces

if TYPE_CHECKING:
    from router.tracing.export import SpanSink

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def traces_wanted(traces: Traces | None, environment: Mapping[str, str]) -> Traces | None:
    """The section to go by; None: no spans. OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER=none end them all."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environment.get("OTEL_TRACES_EXPORTER", "") == "none":
        return None
    if traces is None and any(environment.get(name) for name in ENDPOINTS):
        return Traces()
    return traces


def start_traces(
    traces: Traces | None, environment: Mapping[str, str], service: str, instance: str
) -> "SpanSink | None":
    """Where this process's spans go, or None. Raises HeliostatError when the packages are missing."""
    wanted = traces_wanted(traces, environment)
    if wanted is None:
        return None
    try:
        from router.tracing.export import open_sink
    except ImportError as error:
        raise HeliostatError(
            f"observability.traces: {error}; install opentelemetry-exporter-otlp-proto-http"
        ) from error
    return open_sink(wanted, service, instance)
