"""The environment of a replica's processes, set in one place.

vLLM reads these when it is imported, so they must stand before a replica's actor starts.
"""

import os

from deployments.icarus.registration import ICARUS
from deployments.vllm_plugin import CPU_LORA, NAP
from heliostat.spec import Pool

PASSED_THROUGH = ("HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN", "VLLM_LOGGING_LEVEL")
PASSED_PREFIX = "OTEL_"
"""OpenTelemetry's own settings: where spans go, with which headers, how many at a time."""

OVER_HTTP = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
"""Collectors have another port for gRPC, which is vLLM's default for its own spans."""


def router_environment() -> dict[str, str]:
    """A router needs no accelerator, also where vLLM is the CUDA build."""
    return {**_passed_through(), "VLLM_CPU_KVCACHE_SPACE": "0", "VLLM_NO_USAGE_STATS": "1"}


def replica_environment(pool: Pool, service: str = "heliostat") -> dict[str, str]:
    """One replica of `pool`; `service` is its name in traces, unless the operator has set one."""
    named = {"OTEL_SERVICE_NAME": service}
    environment = {**named, **_passed_through(), "VLLM_NO_USAGE_STATS": "1", **OVER_HTTP}
    if pool.gpus == 0:
        threads = str(max(1, int(pool.cpus)))
        environment |= {
            "OMP_NUM_THREADS": threads,
            # vLLM would bind every engine of the host to the same first cores.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # Sampling helpers would compile on their first use, in the middle of somebody's request:
            # 20 s of silence, measured for the first request with logprobs.
            "TORCHDYNAMO_DISABLE": "1",
            NAP: "1",
        }
        if pool.takes_adapters:
            environment[CPU_LORA] = "1"
    if pool.icarus:
        environment[ICARUS] = "1"
    return environment


def _passed_through() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_THROUGH or name.startswith(PASSED_PREFIX)
    }
