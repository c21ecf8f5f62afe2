"""What is put on Serve: ours beside others, in an order in which no router names a pool that is not there."""

from pathlib import Path

import pytest

from cluster.deploy_config import ATTEMPT, body, find_ours, steps, wanted
from cluster.deploy_diff import Config
from cluster.serve_api import Application, HttpOptions, Proxy, ServeDetails
from deployments.names import APP_NAME
from heliostat.errors import HeliostatError
from heliostat.spec import Model, Spec
from heliostat.specfile import load_spec

SPEC = load_spec(Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml")
NOTHING = ServeDetails()
OTHER: Config = {"name": "other", "import_path": "theirs:app", "route_prefix": "/other"}


def running(applications: dict[str, Config], status: str = "RUNNING", **odd: str) -> ServeDetails:
    """A Serve on which these were put; `odd` gives single ones another status."""
    return ServeDetails(
        applications={
            name: Application(
                status=odd.get(name.replace("-", "_"), status),
                source="declarative",
                route_prefix=str(config["route_prefix"]) if config.get("route_prefix") else None,
                deployed_app_config=dict(config),
            )
            for name, config in applications.items()
        },
        http_options=HttpOptions(host="0.0.0.0", port=9000),
        proxies={"node": Proxy(node_ip="10.0.0.1", status="HEALTHY")},
    )


def ours(spec: Spec = SPEC) -> dict[str, Config]:
    return wanted(spec, find_ours(NOTHING), NOTHING)


def without(spec: Spec, pool: str) -> Spec:
    """Without a prefill pool and the models on it."""
    return spec.model_copy(
        update={
            "prefill": {name: each for name, each in spec.prefill.items() if name != pool},
            "models": {name: each for name, each in spec.models.items() if each.prefill != pool},
        }
    )


def test_a_first_deploy_is_one_step_and_brings_its_own_port() -> None:
    (step,) = steps({}, ours())
    put = body(step, find_ours(NOTHING), NOTHING, "127.0.0.1", 8123)
    assert put["http_options"] == {"host": "127.0.0.1", "port": 8123}
    assert [app["name"] for app in put["applications"]] == list(ours())


def test_the_same_spec_is_no_step() -> None:
    assert steps(ours(), ours()) == ()


def test_others_are_repeated_as_they_are_and_serve_stays_where_it_listens() -> None:
    details = running({**ours(), "other": OTHER})
    found = find_ours(details)
    assert found.others == (OTHER,)
    (step,) = steps({}, ours())
    put = body(step, found, details, "127.0.0.1", 8123)
    assert put["applications"][0] == OTHER
    assert put["http_options"] == {"host": "0.0.0.0", "port": 9000}
    gone = body(None, found, details)
    assert gone["applications"] == [OTHER]


def test_a_new_pool_comes_before_the_routers_that_know_it() -> None:
    first, second = steps(ours(without(SPEC, "mirror")), ours())
    assert first.applications[APP_NAME] == ours(without(SPEC, "mirror"))[APP_NAME]
    assert "heliostat-prefill-mirror" in first.applications
    assert second.applications == ours()


def test_a_pool_leaves_after_the_routers_that_call_it() -> None:
    first, second = steps(ours(), ours(without(SPEC, "mirror")))
    assert "heliostat-prefill-mirror" in first.applications
    assert first.applications[APP_NAME] == ours(without(SPEC, "mirror"))[APP_NAME]
    assert second.removed == {"heliostat-prefill-mirror"}


def test_a_model_more_touches_the_routers_alone() -> None:
    more = SPEC.model_copy(update={"models": {**SPEC.models, "two": Model(prefill="home", decode="base")}})
    (step,) = steps(ours(), ours(more))
    assert {name for name in step.applications if step.applications[name] != ours()[name]} == {APP_NAME}


def test_what_did_not_start_is_tried_again_once_and_stays_as_it_is_from_then_on() -> None:
    failed = running(ours(), heliostat_prefill_home="DEPLOY_FAILED")
    again = wanted(SPEC, find_ours(failed), failed)
    differing = {name for name in again if again[name] != ours()[name]}
    assert differing == {"heliostat-prefill-home"}
    assert again["heliostat-prefill-home"]["runtime_env"] == {"env_vars": {ATTEMPT: "1"}}

    well = running(again)
    assert wanted(SPEC, find_ours(well), well) == again
    failed_twice = running(again, heliostat_prefill_home="DEPLOY_FAILED")
    third = wanted(SPEC, find_ours(failed_twice), failed_twice)
    assert third["heliostat-prefill-home"]["runtime_env"] == {"env_vars": {ATTEMPT: "2"}}


def test_an_application_at_the_routers_route_is_named() -> None:
    details = running({"other": {**OTHER, "route_prefix": "/"}})
    with pytest.raises(HeliostatError, match="the application other on this Serve has the route /"):
        wanted(SPEC, find_ours(details), details)


def test_what_heliostat_serve_runs_in_a_foreground_is_left_alone() -> None:
    details = ServeDetails(applications={APP_NAME: Application(status="RUNNING", source="imperative")})
    with pytest.raises(HeliostatError, match="heliostat serve"):
        find_ours(details)


def test_what_is_being_deleted_is_not_there_any_more() -> None:
    details = running({**ours(), "other": OTHER}, status="DELETING")
    found = find_ours(details)
    assert (found.before, found.others) == ({}, ())
