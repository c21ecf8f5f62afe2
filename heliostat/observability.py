"""What a running cluster says about itself, as the spec has it."""

from typing import Literal

from pydantic import Field

from heliostat.section import Section


class Traces(Section):
    """OpenTelemetry spans of every request; what is left out, the standard OTEL_* variables say."""

    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="An OTLP/HTTP collector, like http://collector:4318; null: OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    sample_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The part of the requests that is traced; a client's traceparent decides for its own.",
    )
    engine: bool = Field(default=False, description="vLLM's own span of each leg, too.")


class Logs(Section):
    """What router and replicas write into Serve's log files; never prompts or answers."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "text"
    requests: bool = Field(default=True, description="One line for every request that is over.")


class Observability(Section):
    """What a running cluster says about itself, beside its metrics."""

    traces: Traces | None = Field(
        default=None, description="Spans; null: only where an OTEL_EXPORTER_OTLP_ENDPOINT is set."
    )
    logs: Logs = Logs()

    def of_pools(self) -> "Observability":
        """What replicas of pools need of it: which requests are traced and logged, routers decide."""
        traces = self.traces.model_copy(update={"sample_ratio": None}) if self.traces else None
        return Observability(traces=traces, logs=self.logs.model_copy(update={"requests": True}))
