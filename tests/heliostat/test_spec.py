"""Facts about the spec's types, whatever file they come from."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, JsonValue, ValidationError

from heliostat.spec import (
    Autoscale,
    Connector,
    Family,
    Limits,
    Logs,
    Lora,
    Model,
    Observability,
    Pool,
    PoolSpec,
    Replicas,
    Router,
    SimTiming,
    Spec,
    Traces,
    Transfer,
)
from heliostat.wire import Role

REFERENCE = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()


def raw_spec() -> dict[str, JsonValue]:
    return {
        "family": {"base": "org/base"},
        "prefill": {"home": {"weights": "org/home"}},
        "decode": {"shared": {"weights": "org/base"}},
        "models": {"home": {"prefill": "home", "decode": "shared"}},
    }


def test_a_spec_of_names_alone_has_the_documented_defaults() -> None:
    spec = Spec.model_validate(raw_spec())
    pool = spec.prefill["home"]
    assert (spec.family.dtype, spec.family.max_model_len, spec.family.block_size) == ("bfloat16", 4096, None)
    assert spec.transfer == Transfer(transport="shm", lease_s=30.0, directory="/dev/shm/heliostat")
    assert pool.replicas == Replicas(min=1, max=1)
    assert (pool.gpus, pool.cpus, pool.kv_cache_gib, pool.max_running) == (1, 1.0, None, 256)
    assert pool.engine_args == {}
    assert (pool.engine, pool.policy, pool.tpot_ms, pool.drain_s) == (
        "vllm",
        None,
        None,
        600.0,
    )
    assert (spec.router.replicas, spec.models["home"].limits) == (1, Limits(weight=1.0, queue_s=30.0))


def test_pools_are_listed_prefill_first_in_the_order_of_the_file() -> None:
    raw = raw_spec() | {"prefill": {"z": {"weights": "org/z"}, "a": {"weights": "org/a"}}}
    assert list(Spec.model_validate(raw).pools()) == [
        (Role.PREFILL, "z"),
        (Role.PREFILL, "a"),
        (Role.DECODE, "shared"),
    ]


def test_a_number_of_replicas_is_both_bounds() -> None:
    assert Replicas.model_validate(3) == Replicas(min=3, max=3)


def test_replicas_refuse_a_min_above_the_max() -> None:
    with pytest.raises(ValidationError, match="min 3 is larger than max 1; raise max or lower min"):
        Replicas(min=3, max=1)


@pytest.mark.parametrize("value", [0, True, "2", 1.5, {"min": -1}, {"max": 0}, {"max": "2"}])
def test_replicas_refuse(value: JsonValue) -> None:
    with pytest.raises(ValidationError):
        Replicas.model_validate(value)


@pytest.mark.parametrize("name", ["a", "7", "gpt-4.1_mini", "a" * 63])
def test_a_name_may_be(name: str) -> None:
    raw = raw_spec() | {"models": {name: {"prefill": "home", "decode": "shared"}}}
    assert list(Spec.model_validate(raw).models) == [name]


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "a b", "a\n", "a" * 64])
def test_a_name_may_not_be(name: str) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate(raw_spec() | {"models": {name: {"prefill": "home", "decode": "shared"}}})


@pytest.mark.parametrize("section", ["prefill", "decode", "models"])
def test_a_section_without_entries_is_refused(section: str) -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        Spec.model_validate(raw_spec() | {section: {}})


@pytest.mark.parametrize("value", ["30", True, 0, -1.0, float("inf"), float("nan")])
def test_a_lease_is_a_positive_finite_number(value: JsonValue) -> None:
    with pytest.raises(ValidationError):
        Transfer.model_validate({"lease_s": value})


@pytest.mark.parametrize(
    "limits",
    [
        {"weight": 0},
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"requests_per_s": 0},
        {"tokens_per_s": -1},
        {"max_queued": -1},
        {"queue_s": 0},
    ],
)
def test_limits_refuse(limits: dict[str, JsonValue]) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(limits)


def test_a_spec_cannot_be_changed() -> None:
    spec = Spec.model_validate(raw_spec())
    with pytest.raises(ValidationError, match="frozen"):
        spec.family.base = "org/other"  # type: ignore[misc]


def test_a_spec_survives_json() -> None:
    spec = Spec.model_validate(raw_spec() | {"transfer": {"transport": "nixl"}})
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "traces", [{"endpoint": "collector:4317"}, {"endpoint": ""}, {"sample_ratio": 1.5}, {"sample_ratio": "1"}]
)
def test_traces_refuse(traces: JsonValue) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate(raw_spec() | {"observability": {"traces": traces}})


def test_what_only_routers_do_with_requests_is_in_no_pools_part() -> None:
    """So that another ratio, or request lines or none, leaves the replicas of pools alone."""

    def part(**logs: JsonValue) -> PoolSpec:
        ratio = {"traces": {"endpoint": "http://c", "sample_ratio": 0.5 if logs else 0.1}, "logs": logs}
        return Spec.model_validate(raw_spec() | {"observability": ratio}).pool_spec(Role.DECODE, "shared")

    assert part() == part(requests=False)
    assert part() != part(level="debug")


def documented_defaults() -> list[dict[str, str]]:
    """The tables of docs/spec.md: each key with its default as written."""
    tables = re.split(r"^\| key \| type \| default \| meaning \|$", REFERENCE, flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| `(\w+)` \| [^|]+ \| `?([^|`]+)`? \|", re.MULTILINE)
    return [dict(row.findall(table.split("\n\n")[0])) for table in tables]


def actual_defaults(section: type[BaseModel]) -> dict[str, str]:
    """Each key with its default as the reference writes it."""
    defaults = {}
    for key, field in section.model_fields.items():
        value = "required" if field.is_required() else field.get_default(call_default_factory=True)
        if value == Replicas():
            value = 1
        elif isinstance(value, BaseModel):
            value = {}  # the section's own table has its defaults
        defaults[key] = value if isinstance(value, str) else json.dumps(value)
    return defaults


def test_the_reference_gives_every_key_and_default() -> None:
    sections: list[type[BaseModel]] = [
        Spec,
        Family,
        Transfer,
        Connector,
        Router,
        Observability,
        Traces,
        Logs,
        Pool,
        Lora,
        Replicas,
        Autoscale,
        SimTiming,
        Model,
        Limits,
    ]
    assert documented_defaults() == [actual_defaults(section) for section in sections]


def test_the_example_in_the_reference_is_a_spec() -> None:
    example, *_ = re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL)
    assert list(Spec.model_validate(yaml.safe_load(example)).models) == ["math", "code"]


def test_every_key_of_a_pool_is_known_to_concern_the_routers_or_not() -> None:
    """One that is in neither list changes nothing in a running router."""
    theirs = {"replicas", "autoscale", "drain_s", "surge_percent", "cpus", "resources", "kv_cache_gib"}
    theirs |= {"max_running", "engine_args", "engine", "sim"}
    assert theirs | set(Pool.ROUTERS) == set(Pool.model_fields)
    assert not theirs & set(Pool.ROUTERS)
