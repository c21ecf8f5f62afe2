import pytest

from heliostat.errors import HeliostatError
from heliostat.spec import Family, Model, Pool, Replicas, Spec
from heliostat.wire import Role
from simulator.topology import SHARED, TOPOLOGIES, Arrangement, arrange

MODELS = ("a", "b", "c")


def _pool(weights: str, replicas: int, gpus: int = 1) -> Pool:
    return Pool(weights=weights, replicas=Replicas(min=1, max=replicas), gpus=gpus)


def _spec() -> Spec:
    """Two prefill pools of the same weights and one of others, 5 replicas; 4 decode replicas of 2 GPUs."""
    return Spec(
        family=Family(base="base"),
        prefill={"p1": _pool("math", 2), "p2": _pool("math", 2), "p3": _pool("code", 1)},
        decode={"d": _pool("base", 4, gpus=2)},
        models={m: Model(prefill=p, decode="d") for m, p in zip(MODELS, ("p1", "p2", "p3"), strict=True)},
    )


def _replicas(arrangement: Arrangement) -> dict[str, int]:
    return {f"{role}.{name}": pool.replicas.max for (role, name), pool in arrangement.pools().items()}


PER_MODEL_PREFILL = {"prefill.a": 2, "prefill.b": 2, "prefill.c": 1}
PER_MODEL_DECODE = {"decode.a": 2, "decode.b": 1, "decode.c": 1}
ONE_PREFILL = {"prefill.shared": 5}
ONE_DECODE = {"decode.shared": 4}

EXPECTED = {
    "spec": {"prefill.p1": 2, "prefill.p2": 2, "prefill.p3": 1, "decode.d": 4},
    "dedicated": PER_MODEL_PREFILL | PER_MODEL_DECODE,
    "sun": PER_MODEL_PREFILL | ONE_DECODE,
    "qsun": PER_MODEL_PREFILL | ONE_DECODE,
    "sun-lora": ONE_PREFILL | ONE_DECODE,
    "prefillshare": ONE_PREFILL | PER_MODEL_DECODE,
    "icarus": ONE_PREFILL | ONE_DECODE,
    "colocated": {"decode.shared": 9},
    "colocated-icarus": {"decode.shared": 9},
}

WHO_SHARES = {
    "spec": "ab c",
    "dedicated": "a b c",
    "sun": "a b c",
    "qsun": "a b c",
    "sun-lora": "a b c",
    "prefillshare": "abc",
    "icarus": "abc",
    "colocated": "a b c",
    "colocated-icarus": "abc",
}


def test_every_topology_is_looked_at_here() -> None:
    assert set(TOPOLOGIES) == set(EXPECTED) == set(WHO_SHARES)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_replicas_of_each_role_are_those_of_the_spec_split_by_pool(name: str) -> None:
    arrangement = arrange(_spec(), name)
    assert arrangement.topology == name
    assert _replicas(arrangement) == EXPECTED[name]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_models_share_kv_names_when_one_module_writes_their_kv(name: str) -> None:
    arrangement = arrange(_spec(), name)
    domains: dict[str, str] = {}
    for model in MODELS:
        domain = arrangement.domain(model)
        domains[domain] = domains.get(domain, "") + model
    assert sorted(domains.values()) == WHO_SHARES[name].split()


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_topology_is_a_spec_that_production_takes(name: str) -> None:
    spec = arrange(_spec(), name).spec
    assert Spec.model_validate(spec.model_dump()) == spec
    assert {model.prefill for model in spec.models.values()} == set(spec.prefill)
    assert {model.decode for model in spec.models.values()} == set(spec.decode)


def test_gpus_are_those_of_all_replicas() -> None:
    assert arrange(_spec(), "spec").gpus == 5 + 4 * 2
    assert arrange(_spec(), "colocated").gpus == 9 * 2


def test_a_pool_has_one_replica_at_least() -> None:
    spec = _spec().model_copy(update={"decode": {"d": _pool("base", 1)}})
    assert [pool.replicas.max for pool in arrange(spec, "dedicated").spec.decode.values()] == [1, 1, 1]


def test_qsun_differs_from_sun_by_its_decode_weights_alone() -> None:
    sun, qsun = arrange(_spec(), "sun"), arrange(_spec(), "qsun")
    assert (dict(sun.weight_bits), dict(qsun.weight_bits)) == ({}, {SHARED: 4})
    assert sun.spec == qsun.spec


def test_what_a_spec_cannot_say_stands_beside_it() -> None:
    said = {
        name: (made.adapters, made.one_writer, made.colocated)
        for name in TOPOLOGIES
        if any(((made := arrange(_spec(), name)).adapters, made.one_writer, made.colocated))
    }
    assert said == {
        "sun-lora": (True, False, False),
        "icarus": (False, True, False),
        "colocated": (True, False, True),
        "colocated-icarus": (False, True, True),
    }


def test_scaled_changes_the_named_pools_and_no_other() -> None:
    scaled = arrange(_spec(), "sun").scaled({(Role.DECODE, SHARED): 7, (Role.PREFILL, "b"): 1})
    assert _replicas(scaled) == {"prefill.a": 2, "prefill.b": 1, "prefill.c": 1, "decode.shared": 7}
    assert (scaled.topology, scaled.gpus) == ("sun", 4 + 7 * 2)


def test_a_colocated_pool_is_scaled_by_its_decode_role() -> None:
    scaled = arrange(_spec(), "colocated").scaled({(Role.DECODE, SHARED): 3})
    assert _replicas(scaled) == {"decode.shared": 3}
    assert scaled.spec.prefill == scaled.spec.decode


def test_an_unknown_topology_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(HeliostatError, match=r"no topology 'moon'.*dedicated, sun, qsun"):
        arrange(_spec(), "moon")
