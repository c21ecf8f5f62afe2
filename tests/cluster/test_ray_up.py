"""The `ray up` configs: Ray's own schema takes them, and the example's pools fit their machines."""

import json
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import JsonValue

from deployments.app import ROUTER_CPUS
from heliostat.spec import Spec
from heliostat.specfile import load_spec

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "cluster" / "ray").glob("*.yaml"))
SPEC = load_spec(ROOT / "examples" / "ray" / "cluster.yaml")
SCHEMA = json.loads((files("ray") / "autoscaler" / "ray-schema.json").read_text())
ONPREM_MACHINE = {"CPU": 16.0, "GPU": 1.0}
"""What is taken for a machine of one's own, beside the resource that its config gives it."""

Resources = dict[str, float]


def read(config: Path) -> dict[str, JsonValue]:
    document: dict[str, JsonValue] = yaml.safe_load(config.read_text())
    return document


def machines(config: Path) -> list[Resources]:
    """Every machine that there can be, with what it has."""
    document = read(config)
    if document["provider"]["type"] == "local":
        found = []
        for ips, has in re.findall(
            r"(\*.*?\*)\) has='(\{.*?\})'", " ".join(document["worker_start_ray_commands"])
        ):
            found += [{**ONPREM_MACHINE, **json.loads(has)}] * len(re.findall(r"[\d.]+", ips))
        assert len(found) == len(document["provider"]["worker_ips"]), "every machine is for something"
        return found
    types = document["available_node_types"]
    return [
        {name: float(amount) for name, amount in kind["resources"].items()}
        for name, kind in types.items()
        if name != document["head_node_type"]
        for _ in range(kind["max_workers"])
    ]


def replicas(spec: Spec) -> list[Resources]:
    """What each replica and each router asks for, at the spec's largest."""
    pools = [
        {"CPU": pool.cpus, "GPU": float(pool.gpus), **pool.resources}
        for pool in spec.pools().values()
        for _ in range(pool.replicas.max)
    ]
    return pools + [{"CPU": ROUTER_CPUS, **spec.router.resources}] * spec.router.replicas


def place(wanted: list[Resources], there: list[Resources]) -> list[Resources]:
    """First fit, the largest first; returns who found no place."""
    left = [Counter(machine) for machine in there]
    homeless = []
    for each in sorted(wanted, key=lambda r: (r.get("GPU", 0), r["CPU"]), reverse=True):
        home = next((m for m in left if all(m[name] >= amount for name, amount in each.items())), None)
        if home is None:
            homeless.append(each)
        else:
            home.subtract(each)
    return homeless


def test_there_are_three() -> None:
    assert [config.stem for config in CONFIGS] == ["aws", "gcp", "onprem"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_rays_schema_takes_it(config: Path) -> None:
    jsonschema.validate(read(config), SCHEMA)
    broken = {**read(config), "max_wrokers": 3}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_the_example_fits_its_machines_at_its_largest(config: Path) -> None:
    assert place(replicas(SPEC), machines(config)) == []
    too_many = [{"CPU": 1.0, "GPU": 1.0}] * (len(machines(config)) + 1)
    assert place(too_many, machines(config)) != []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_every_machine_has_serves_environment_and_only_the_token_lets_one_in(config: Path) -> None:
    document = read(config)
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = document[commands][-1]
        assert (
            start.index("RAY_AUTH_MODE=token")
            < start.index('eval "$(heliostat env)"')
            < start.index("ray start")
        )
    assert "--dashboard-host=127.0.0.1" in document["head_start_ray_commands"][-1]
    assert "~/.ray/auth_token" in document["file_mounts"]


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.stem != "onprem"], ids=lambda config: config.stem)
def test_the_smallest_example_fits_the_machines_that_are_always_there(config: Path) -> None:
    types = read(config)["available_node_types"]
    always = [
        {name: float(amount) for name, amount in kind["resources"].items()}
        for kind in types.values()
        for _ in range(kind.get("min_workers", 0))
    ]
    least = [r for r in replicas(SPEC) if "router_cpu" in r] + [
        {"CPU": pool.cpus, "GPU": float(pool.gpus), **pool.resources}
        for pool in SPEC.pools().values()
        for _ in range(pool.replicas.min)
    ]
    assert place(least, always) == []
    assert read(config)["max_workers"] >= sum(kind.get("max_workers", 0) for kind in types.values())
