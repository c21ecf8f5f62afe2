"""Whether spans are made at all, as spec and environment say; without OpenTelemetry's packages until then."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from heliostat.errors import HeliostatError
from heliostat.spec import Traces

if TYPE_CHECKING:
    from router.tracing.export import SpanSink

TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
DEFAULT_ENDPOINT = "http://localhost:4318"
TRACES_PATH = "/v1/traces"


def traces_wanted(traces: Traces | None, environment: Mapping[str, str]) -> Traces | None:
    """The section to go by; None: no spans. OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER=none end them all."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environment.get("OTEL_TRACES_EXPORTER", "") == "none":
        return None
    if traces is None and (environment.get(TRACES_ENDPOINT) or environment.get(ENDPOINT)):
        return Traces()
    return traces


def traces_url(traces: Traces, environment: Mapping[str, str]) -> str:
    """Where spans are posted to: the spec comes before the environment, that before OpenTelemetry's default.

    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is taken as it is; to the others, the path of the traces is added.
    """
    if traces.endpoint is None and (whole := environment.get(TRACES_ENDPOINT)):
        return whole
    base = (traces.endpoint or environment.get(ENDPOINT) or DEFAULT_ENDPOINT).rstrip("/")
    return base if base.endswith(TRACES_PATH) else base + TRACES_PATH


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
    return open_sink(traces_url(wanted, environment), wanted.sample_ratio, service, instance)
