"""The Serve config in the RayService is the one that `deployments.serve_config` makes of the same spec."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from deployments.app import build_pool, build_router
from deployments.serve_config import serve_config
from heliostat.spec import PoolSpec, Spec

Object = dict[str, Any]
Example = Callable[[str], Object]

EXAMPLES = sorted(path.stem for path in (Path(__file__).parents[2] / "helm" / "examples").glob("*.yaml"))


def as_served(values: Object) -> Spec:
    """The spec of the values with what the chart adds: the node's address, and resources that place pools.

    In the templates' order, which is that of the names: Helm forgets the file's.
    """
    spec = json.loads(json.dumps(values["spec"]))
    spec.setdefault("transfer", {}).setdefault("host", "node")
    spec.setdefault("router", {}).setdefault("resources", {})["heliostat-router"] = 1
    for role in ("prefill", "decode"):
        spec[role] = dict(sorted(spec[role].items()))
        for name, pool in spec[role].items():
            own = "heliostat-replica" if values.get("layout") == "onePod" else f"heliostat-{role}-{name}"
            pool.setdefault("resources", {})[own] = 1
    return Spec.model_validate(spec)


def rendered(helm: Any, values: Object) -> Object:
    helm.install(values)
    (service,) = helm.cluster.of_kind("RayService")
    config: Object = yaml.safe_load(service["spec"]["serveConfigV2"])
    return config


def check(config: Object, values: Object) -> None:
    """Equal to the code's, parsed by Ray, and built."""
    spec = as_served(values)
    expected = json.loads(serve_config(spec).model_dump_json())
    assert config["applications"] == expected["applications"]
    parsed = ServeDeploySchema.model_validate(config)
    assert parsed.http_options.host == "0.0.0.0"
    *pools, routers = parsed.applications
    assert len(pools) == len(spec.pools())
    for section in pools:
        assert isinstance(build_pool(PoolSpec.model_validate(section.args)), Application)
    assert Spec.model_validate(routers.args) == spec.router_spec()
    assert isinstance(build_router(Spec.model_validate(routers.args)), Application)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_chart_makes_the_config_that_the_code_makes(helm: Any, example: Example, name: str) -> None:
    values = example(name)
    check(rendered(helm, values), values)


DEFAULTS_WRITTEN_OUT: Object = {
    "gpus": 1,
    "cpus": 1,
    "replicas": {"min": 1},
    "lora": None,
    "adapters": {},
    "engine_args": {},
    "kv_cache_gib": None,
    "sim": {"speed": 1},
    "drain_s": 600,
    "tpot_ms": None,
    "icarus": False,
}
ODD: Object = {
    "gpus": 0,
    "cpus": 0.25,
    "replicas": {"min": 2, "max": 5},
    "lora": {},
    "adapters": {"a.b_c": "acme/a", "z": "/weights/z"},
    "engine_args": {"seed": 12345678, "hf_overrides": {"rope": [1, 2.5, "x<y&z"]}, "none": {}},
    "kv_cache_gib": 0.5,
    "max_running": 1000000,
    "resources": {"fast": 2},
    "sim": {"kv_tokens": 2000000, "gpu": "h100"},
    "engine": "sim",
    "drain_s": 1234.5,
    "tpot_ms": 30,
    "policy": "least_load",
    "local_prefill_tokens": 0,
    "ttft_ms": 500,
    "autoscale": {"idle_s": 60, "up_delay_s": 5},
}
OBSERVABILITY: list[Object] = [
    {},
    {"logs": {"requests": False}, "traces": {"sample_ratio": 0.1}},
    {
        "logs": {"level": "debug", "requests": False},
        "traces": {"endpoint": "http://c:4318", "engine": True, "sample_ratio": 1},
    },
]


@pytest.mark.parametrize("observability", OBSERVABILITY, ids=["plain", "routers only", "all"])
@pytest.mark.parametrize("pool", [DEFAULTS_WRITTEN_OUT, ODD], ids=["defaults written out", "odd"])
def test_odd_specs_come_out_as_the_code_makes_them(helm: Any, pool: Object, observability: Object) -> None:
    values: Object = {
        "spec": {
            "family": {"base": "acme/base", "dtype": "float16", "max_model_len": 1000000, "block_size": 16},
            "transfer": {
                "transport": "nccl",
                "lease_s": 30,
                "memory_gib": 1.5,
                "decode_choice": "late",
                "connector": {"name": "X", "prefill_params": {}, "config": {"a": 1e9, "b": None}},
            },
            "observability": observability,
            "max_gpus": 12,
            "router": {"prefix_blocks": 2000000, "replicas": 1, "idle_s": 30.0},
            "prefill": {"b_1": {"weights": "acme/b", **pool}, "a.2": {"weights": "acme/a"}},
            "decode": {"x" * 63: {"weights": "acme/d", **pool}, "0": {"weights": "acme/d"}},
            "models": {
                "m": {"prefill": "b_1", "decode": "0", "limits": {"weight": 2, "queue_s": 30}},
                "n": {"prefill": "a.2", "decode": "x" * 63, "untrained_pair": True, "limits": {}},
            },
        }
    }
    check(rendered(helm, values), values)


def test_the_config_map_holds_the_spec_as_it_is_served(helm: Any, example: Example) -> None:
    values = example("multi-node")
    helm.install(values)
    (found,) = helm.cluster.of_kind("ConfigMap")
    assert Spec.model_validate(yaml.safe_load(found["data"]["cluster.yaml"])) == as_served(values)
