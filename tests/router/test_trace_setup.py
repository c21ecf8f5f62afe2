"""What spec and environment say about spans."""

import pytest

from heliostat.spec import Traces
from router.tracing.export import resource, sampler
from router.tracing.setup import traces_url, traces_wanted

SECTION = Traces(endpoint="http://spec:4318")


@pytest.mark.parametrize(
    ("traces", "environment", "wanted"),
    [
        (None, {}, None),
        (SECTION, {}, SECTION),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318"}, Traces()),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://env:4318/v1/traces"}, Traces()),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        (SECTION, {"OTEL_SDK_DISABLED": "true"}, None),
        (SECTION, {"OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_spans_are_made_where(
    traces: Traces | None, environment: dict[str, str], wanted: Traces | None
) -> None:
    assert traces_wanted(traces, environment) == wanted


@pytest.mark.parametrize(
    ("endpoint", "environment", "url"),
    [
        (None, {}, "http://localhost:4318/v1/traces"),
        ("http://spec:4318", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://env"}, "http://spec:4318/v1/traces"),
        (
            "http://spec:4318/",
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://e"},
            "http://spec:4318/v1/traces",
        ),
        ("http://spec/v1/traces", {}, "http://spec/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318"}, "http://env:4318/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://env/own"}, "http://env/own"),
    ],
)
def test_spans_go_to(endpoint: str | None, environment: dict[str, str], url: str) -> None:
    assert traces_url(Traces(endpoint=endpoint), environment) == url


def test_the_environment_names_the_service_else_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = resource("heliostat-router", "router#a").attributes
    assert (ours["service.name"], ours["service.instance.id"]) == ("heliostat-router", "router#a")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")
    theirs = resource("heliostat-router", "router#a").attributes
    assert (theirs["service.name"], theirs["deployment.environment.name"]) == ("shop", "prod")
    assert theirs["service.instance.id"] == "router#a"


def test_without_a_ratio_the_standard_variables_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    assert "0.25" in sampler(None).get_description()
    assert "0.5" in sampler(0.5).get_description()
