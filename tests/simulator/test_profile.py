from pathlib import Path

import pytest

from heliostat.spec import Family, Model, Pool, Replicas, SimTiming, Spec
from heliostat.wire import PoolKey, Role
from simulator.engine.profile import Profile
from simulator.profile import BATCHED_TOKENS, Hardware, profiles_of
from simulator.topology import SHARED, TOPOLOGIES, arrange

BASE = "Qwen/Qwen3-8B"


def _spec(pool: Pool | None = None) -> Spec:
    pool = pool or Pool(weights=BASE, replicas=Replicas(min=2, max=2), max_running=32)
    return Spec(
        family=Family(base=BASE),
        prefill={"p": pool},
        decode={"d": pool},
        models={model: Model(prefill="p", decode="d") for model in ("a", "b")},
    )


def _profiles(topology: str = "spec", pool: Pool | None = None, **hardware: bool) -> dict[PoolKey, Profile]:
    return profiles_of(arrange(_spec(pool), topology), Hardware(**hardware), Path(), 64)


def _step_ms(profile: Profile) -> float:
    return profile.timing.step_ms(8, 8000, ())


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_pool_with_replicas_has_a_profile(topology: str) -> None:
    arrangement = arrange(_spec(), topology)
    profiles = profiles_of(arrangement, Hardware(), Path(), 64)
    assert set(profiles) == set(arrangement.pools())
    assert {profile.block_tokens for profile in profiles.values()} == {64}
    assert {profile.max_running for profile in profiles.values()} == {32}


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_decode_replicas_keep_prefixes_only_where_one_writer_made_all_kv(topology: str) -> None:
    keeps = {role: profile.keeps_prefixes for (role, _), profile in _profiles(topology).items()}
    shares = topology in ("icarus", "colocated", "colocated-icarus")
    assert keeps[Role.DECODE] is shares
    assert keeps.get(Role.PREFILL, True)


def test_a_sim_pool_takes_the_times_of_its_own_spec_unless_it_is_planned() -> None:
    pool = Pool(weights=BASE, engine="sim", sim=SimTiming(step_ms=7.0, per_request_ms=0.5, kv_tokens=1234))
    own = _profiles(pool=pool)[Role.DECODE, "d"]
    assert (_step_ms(own), own.kv_tokens) == (11.0, 1234)
    planned = _profiles(pool=pool, plan_sim=True)[Role.DECODE, "d"]
    assert _step_ms(planned) != 11.0


def test_a_spec_says_how_much_kv_and_how_many_tokens_a_step_takes() -> None:
    pool = Pool(weights=BASE, kv_cache_gib=9.0, engine_args={"max_num_batched_tokens": 777})
    profile = _profiles(pool=pool)[Role.DECODE, "d"]
    # 36 layers of 8 KV heads of 128, keys and values, 2 bytes each: 144 KiB a token.
    assert (profile.kv_bytes_per_token, profile.kv_tokens) == (147_456, 65_536)
    assert profile.max_batched_tokens == 777
    assert _profiles()[Role.DECODE, "d"].max_batched_tokens == BATCHED_TOKENS


def test_weights_of_4_bits_are_faster_and_leave_more_room_for_kv() -> None:
    sun, qsun = _profiles("sun"), _profiles("qsun")
    assert _step_ms(qsun[Role.DECODE, SHARED]) < 0.6 * _step_ms(sun[Role.DECODE, SHARED])
    assert qsun[Role.DECODE, SHARED].kv_tokens > sun[Role.DECODE, SHARED].kv_tokens
    assert qsun[Role.PREFILL, "a"] == sun[Role.PREFILL, "a"]


def test_adapters_cost_something_in_the_role_that_has_them() -> None:
    share, lora, icarus = _profiles("prefillshare"), _profiles("sun-lora"), _profiles("icarus")
    sun = _profiles("sun")
    assert lora[Role.PREFILL, SHARED].timing != share[Role.PREFILL, SHARED].timing
    assert lora[Role.DECODE, SHARED] == sun[Role.DECODE, SHARED]
    assert icarus[Role.PREFILL, SHARED] == share[Role.PREFILL, SHARED]
    assert _step_ms(icarus[Role.DECODE, SHARED]) > _step_ms(sun[Role.DECODE, SHARED])


def test_nvlink_hands_over_faster_than_a_network_card() -> None:
    nic, nvlink = (
        profiles_of(arrange(_spec(), "spec"), hardware, Path(), 64)[Role.DECODE, "d"].timing.handoff_ms(2**30)
        for hardware in (Hardware(link="nic"), Hardware(link="nvlink"))
    )
    assert nvlink < nic / 2
