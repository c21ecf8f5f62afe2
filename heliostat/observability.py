"""What a running cluster says about itself, as the spec has it."""

from typing import Literal

from pydantic import Field

from heliostat.section import Section


class Traces(Section):
    """OpenTelemetry spans of every request; what is left out, the standard OTEL_* variables say."""

    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://\S+$",
        description="A collector that takes OTLP over HTTP, like `http://collector:4318`; null: "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`, else `http://localhost:4318`.",
    )
    sample_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The part of the requests that is traced, unless their client's `traceparent` has "
        "decided; null: what `OTEL_TRACES_SAMPLER` says, else all.",
    )
    engine: bool = Field(default=False, description="vLLM's own span of each leg, too, below ours.")


class Logs(Section):
    """What router and replicas write into Serve's log files; never prompts or answers."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is written at all, by us and by Serve."
    )
    format: Literal["json", "text"] = Field(
        default="text", description="One JSON object a line, or Serve's plain lines."
    )
    requests: bool = Field(
        default=True, description="One line, of level `info`, for every request that is over."
    )


class Observability(Section):
    """What a running cluster says about itself, beside its metrics."""

    traces: Traces | None = Field(
        default=None,
        description="OpenTelemetry spans of every request; null: none, unless `OTEL_EXPORTER_OTLP_ENDPOINT` "
        "is set.",
    )
    logs: Logs = Field(default=Logs(), description="What routers and replicas write into Serve's log files.")

    def of_pools(self) -> "Observability":
        """What replicas of pools need of it: which requests are traced and logged, routers decide."""
        traces = self.traces.model_copy(update={"sample_ratio": None}) if self.traces else None
        return Observability(traces=traces, logs=self.logs.model_copy(update={"requests": True}))
