"""A spec as a Serve config file: what Serve itself makes of it, and what a changed spec changes."""

import itertools
import json
from pathlib import Path

from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from deployments.app import build_pool, build_router
from deployments.serve_config import ApplicationSection, serve_config
from heliostat.spec import Limits, Lora, Model, PoolSpec, Replicas, Router, Spec
from heliostat.specfile import load_spec
from heliostat.wire import Role

SPEC = load_spec(Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml")


def sections(spec: Spec) -> dict[str, ApplicationSection]:
    return {section.name: section for section in serve_config(spec).applications}


def changed(before: Spec, after: Spec, part: str) -> set[str]:
    """Applications whose `part` differs."""
    left, right = sections(before), sections(after)
    return {name for name in left if getattr(left[name], part) != getattr(right[name], part)}


def with_pool(spec: Spec, role: Role, name: str, **update: object) -> Spec:
    pools = {**getattr(spec, role.value)}
    pools[name] = pools[name].model_copy(update=update)
    return spec.model_copy(update={role.value: pools})


def test_serve_takes_the_config_as_it_is_written_to_a_file() -> None:
    config = ServeDeploySchema.model_validate(json.loads(serve_config(SPEC).model_dump_json()))
    assert [app.name for app in config.applications] == [
        "heliostat-prefill-base",
        "heliostat-prefill-home",
        "heliostat-prefill-mirror",
        "heliostat-decode-base",
        "heliostat-decode-spell",
        "heliostat",
    ]
    assert [app.route_prefix for app in config.applications] == [None] * 5 + ["/"]


def test_the_builders_take_the_arguments_that_the_config_holds() -> None:
    for section in serve_config(SPEC).applications[:-1]:
        assert isinstance(
            build_pool(PoolSpec.model_validate(json.loads(json.dumps(section.args)))), Application
        )
    routers = serve_config(SPEC).applications[-1]
    read = Spec.model_validate(json.loads(json.dumps(routers.args)))
    assert read == SPEC.router_spec()
    assert isinstance(build_router(read), Application)


def test_other_replicas_another_drain_and_another_surge_build_nothing_anew() -> None:
    more = with_pool(
        SPEC, Role.DECODE, "base", replicas=Replicas(min=3, max=3), drain_s=5.0, surge_percent=50
    )
    assert changed(SPEC, more, "args") == set()
    assert changed(SPEC, more, "deployments") == {"heliostat-decode-base"}
    assert sections(more)["heliostat-decode-base"].deployments[0].num_replicas == 3


def test_another_policy_or_target_is_the_routers_affair() -> None:
    other = with_pool(SPEC, Role.DECODE, "base", policy="least_load", tpot_ms=30.0)
    assert changed(SPEC, other, "args") == {"heliostat"}


def test_room_for_more_requests_is_no_affair_of_the_routers() -> None:
    other = with_pool(SPEC, Role.DECODE, "base", max_running=7, cpus=2.0)
    assert changed(SPEC, other, "args") == {"heliostat-decode-base"}


def test_of_a_pools_size_the_routers_know_only_whether_it_may_be_0() -> None:
    bounds = [Replicas(min=0, max=1), Replicas(min=0, max=4), Replicas(min=1, max=4), Replicas(min=2, max=2)]
    specs = [with_pool(SPEC, Role.DECODE, "base", replicas=each) for each in bounds]
    assert [changed(*pair, "args") for pair in itertools.pairwise(specs)] == [set(), {"heliostat"}, set()]


def test_a_new_router_comes_before_an_old_one_leaves_and_one_at_a_time() -> None:
    (section,) = sections(SPEC)["heliostat"].deployments
    assert (section.num_replicas, section.max_surge_percent) == (1, 100)
    three = SPEC.model_copy(update={"router": Router(replicas=3)})
    (section,) = sections(three)["heliostat"].deployments
    assert section.max_surge_percent == 34
    assert sections(SPEC)["heliostat-decode-base"].deployments[0].max_surge_percent == 0


def test_an_adapter_more_touches_no_replica_of_a_pool_that_says_its_rank() -> None:
    for lora, anew in ((Lora(rank=16), {"heliostat"}), (Lora(), {"heliostat", "heliostat-prefill-home"})):
        one = with_pool(SPEC, Role.PREFILL, "home", lora=lora, adapters={"a": "/adapters/a"})
        two = with_pool(SPEC, Role.PREFILL, "home", lora=lora, adapters={"a": "/adapters/a", "b": "/b"})
        assert changed(one, two, "args") == anew
        assert one.pool_spec(Role.PREFILL, "home").pool.takes_adapters


def test_a_model_more_is_the_routers_affair() -> None:
    models = {**SPEC.models, "two": Model(prefill="home", decode="base", limits=Limits(concurrency=2))}
    more = SPEC.model_copy(update={"models": models})
    assert changed(SPEC, more, "args") == {"heliostat"}


def test_other_weights_build_their_pool_anew_and_no_other() -> None:
    other = with_pool(SPEC, Role.PREFILL, "home", weights="acme/home-v2")
    assert changed(SPEC, other, "args") == {"heliostat-prefill-home", "heliostat"}
