"""What a changed spec does: which pools stay, which change in place, which are made anew, and why."""

import io
import json
from pathlib import Path

from rich.console import Console

from cluster.deploy_config import find_ours, wanted
from cluster.deploy_diff import Change, Config, Diff, Effect, KeyChange, make_diff
from cluster.deploy_table import render_diff
from cluster.serve_api import ServeDetails
from heliostat.spec import Limits, Model, Replicas, Spec
from heliostat.specfile import load_spec
from heliostat.wire import Role

SPEC = load_spec(Path(__file__).parents[2] / "examples" / "quickstart" / "cluster.yaml")
TWO = Replicas(min=2, max=2)
NONE_FAILED: frozenset[str] = frozenset()


def applications(spec: Spec = SPEC) -> dict[str, Config]:
    nothing = ServeDetails()
    return wanted(spec, find_ours(nothing), nothing)


def diff(after: Spec, before: Spec = SPEC) -> Diff:
    return make_diff(applications(before), applications(after), NONE_FAILED)


def with_pool(role: Role, name: str, **update: object) -> Spec:
    pools = {**getattr(SPEC, role.value)}
    pools[name] = pools[name].model_copy(update=update)
    return SPEC.model_copy(update={role.value: pools})


def changed(found: Diff) -> dict[str, Change]:
    return {c.name: c for c in (*found.pools, found.routers) if c.effect is not Effect.UNCHANGED}


def test_the_same_spec_changes_nothing() -> None:
    assert not diff(SPEC).changes
    assert {change.effect for change in diff(SPEC).pools} == {Effect.UNCHANGED}


def test_nothing_runs_there_yet() -> None:
    found = make_diff({}, applications(), NONE_FAILED)
    assert {change.effect for change in (*found.pools, found.routers)} == {Effect.ADDED}
    assert [change.name for change in found.models] == list(SPEC.models)


def test_replicas_change_in_place_and_the_routers_do_not_notice() -> None:
    found = changed(diff(with_pool(Role.DECODE, "base", replicas=Replicas(min=3, max=3))))
    assert found == {
        "decode.base": Change("decode.base", Effect.IN_PLACE, (KeyChange("num_replicas", 1, 3),))
    }


def test_a_policy_or_a_target_makes_only_the_routers_anew() -> None:
    found = changed(diff(with_pool(Role.DECODE, "base", policy="least_load", tpot_ms=30.0)))
    assert set(found) == {"routers"}
    assert KeyChange("decode.base.tpot_ms", None, 30.0) in found["routers"].keys


def test_other_weights_make_their_pool_anew_and_say_which_key_it_was() -> None:
    found = changed(diff(with_pool(Role.PREFILL, "home", weights="acme/home-v2")))
    assert set(found) == {"prefill.home", "routers"}
    (key,) = found["prefill.home"].keys
    assert (key.key, key.before, key.after) == ("weights", SPEC.prefill["home"].weights, "acme/home-v2")
    assert "surge_percent" in found["prefill.home"].note, "one replica: the pool has none for a while"


def test_a_pool_of_two_or_with_a_surge_has_a_replica_all_the_time() -> None:
    for room in ({"replicas": Replicas(min=2, max=2)}, {"surge_percent": 100}):
        found = changed(diff(with_pool(Role.PREFILL, "home", weights="acme/home-v2", **room)))
        assert found["prefill.home"].note == ""


def test_models_come_go_and_change() -> None:
    models = {**SPEC.models, "two": Model(prefill="home", decode="base")}
    models["home"] = models["home"].model_copy(update={"limits": Limits(concurrency=2)})
    del models["mirror"]
    found = diff(SPEC.model_copy(update={"models": models}))
    assert {change.name: change.effect for change in found.models} == {
        "two": Effect.ADDED,
        "home": Effect.CHANGED,
        "mirror": Effect.REMOVED,
    }
    assert set(changed(found)) == {"routers"}
    (home,) = (change for change in found.models if change.name == "home")
    assert home.keys == (KeyChange("limits.concurrency", None, 2),)


def autoscaled(config: Config, **keys: object) -> Config:
    (section,) = config["deployments"]
    return {**config, "deployments": [{**section, "autoscaling_config": keys}]}


def test_serve_makes_a_pool_anew_for_another_scaling_policy_but_not_for_other_bounds() -> None:
    name = "heliostat-decode-base"
    config = applications()[name]
    two, three = (autoscaled(config, policy={"policy_function": "a:b"}, max_replicas=n) for n in (2, 3))
    other = autoscaled(config, policy={"policy_function": "a:c"}, max_replicas=2)
    effects = [
        changed(make_diff({**applications(), name: before}, {**applications(), name: after}, NONE_FAILED))[
            "decode.base"
        ].effect
        for before, after in ((two, three), (two, other), (config, two))
    ]
    assert effects == [Effect.IN_PLACE, Effect.ANEW, Effect.ANEW]


def test_what_failed_is_tried_again_though_the_spec_is_the_same() -> None:
    found = make_diff(applications(), applications(), frozenset({"heliostat-decode-base"}))
    assert found.changes
    assert changed(found)["decode.base"].effect is Effect.RETRIED


def test_a_config_of_another_version_is_compared_key_by_key() -> None:
    old = applications()
    args = {**old["heliostat"]["args"], "gone_since": {"deep": 1}}
    old["heliostat"] = {**old["heliostat"], "args": args}
    found = make_diff(old, applications(), NONE_FAILED)
    assert changed(found)["routers"].keys == (KeyChange("gone_since.deep", 1, None),)


def test_people_read_each_reason_once() -> None:
    text = io.StringIO()
    render_diff(diff(with_pool(Role.PREFILL, "home", weights="acme/home-v2")), Console(file=text, width=300))
    shown = text.getvalue()
    assert shown.count("acme/home-v2") == 1
    assert "made anew, a replica at a time" in shown


def test_scripts_read_json() -> None:
    read = json.loads(diff(with_pool(Role.DECODE, "base", tpot_ms=30.0)).to_json())
    assert read["routers"]["effect"] == "made anew"
    assert {pool["effect"] for pool in read["pools"]} == {"unchanged"}


def test_the_table_on_the_page(shown: str) -> None:
    """A changed quickstart: other weights for one pool, a second replica for another, one more model."""
    weights = SPEC.prefill["mirror"].weights
    changed_spec = with_pool(Role.PREFILL, "home", weights=weights).model_copy(
        update={
            "decode": {**SPEC.decode, "base": SPEC.decode["base"].model_copy(update={"replicas": TWO})},
            "models": {**SPEC.models, "both": Model(prefill="home", decode="spell")},
        }
    )
    text = io.StringIO()
    render_diff(diff(changed_spec), Console(file=text, width=200))
    printed = text.getvalue().replace(str(Path(weights).parent), "…")
    assert words(printed) == words(shown)


def words(table: str) -> list[str]:
    """Of its rows, however wide they are."""
    return [word for word in table.split() if not word.startswith("─")]
