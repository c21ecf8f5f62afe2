"""Environments of replicas and routers."""

import pytest

from deployments.environment import replica_environment, router_environment
from heliostat.spec import Pool


def test_a_cpu_replica_gets_the_threads_that_its_cpus_say() -> None:
    assert replica_environment(Pool(weights="a/b", gpus=0, cpus=4.0))["OMP_NUM_THREADS"] == "4"
    assert replica_environment(Pool(weights="a/b", gpus=0, cpus=0.25))["OMP_NUM_THREADS"] == "1"


def test_a_gpu_replica_keeps_vllms_own_cpu_settings() -> None:
    environment = replica_environment(Pool(weights="a/b", gpus=1))
    assert not [name for name in environment if name.startswith(("OMP", "VLLM_CPU", "TORCHDYNAMO"))]


def test_hub_settings_reach_replicas_and_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SECRET", "x")
    for environment in (replica_environment(Pool(weights="a/b")), router_environment()):
        assert environment["HF_HUB_OFFLINE"] == "1"
        assert "SECRET" not in environment


def test_opentelemetrys_settings_reach_replicas_and_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=x")
    for environment in (replica_environment(Pool(weights="a/b")), router_environment()):
        assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
        assert environment["OTEL_EXPORTER_OTLP_HEADERS"] == "authorization=x"
