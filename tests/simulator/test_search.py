"""The search for the fewest GPUs, on clusters whose capacity is a formula."""

from collections.abc import Callable

import pytest

from heliostat.errors import HeliostatError
from heliostat.spec import Family, Model, Pool, Replicas, Spec
from heliostat.wire import PoolKey, Role
from simulator.search import Trial, find_min_gpus
from simulator.slo import Slo
from simulator.summary import ModelSummary, Percentiles, PoolSummary, Summary
from simulator.topology import Arrangement, arrange

A_SHARE_OF_1 = 1.0


def a_spec(models: int = 2, decode_gpus: int = 1) -> Spec:
    names = [f"model-{number}" for number in range(models)]
    pool = Pool(weights="acme/prefill", replicas=Replicas(min=5, max=5))
    shared = Pool(weights="acme/decode", gpus=decode_gpus)
    return Spec(
        family=Family(base="acme/base"),
        prefill=dict.fromkeys(names, pool),
        decode={"shared": shared},
        models={name: Model(prefill=name, decode="shared") for name in names},
    )


class Plant:
    """A cluster whose models are good as far as their pools have the replicas that they need.

    A need counts replicas; a pool that is short makes its requests wait (prefill) or slow (decode).
    """

    def __init__(self, needs: dict[PoolKey, int]) -> None:
        self.needs = needs
        self.runs: list[tuple[int, ...]] = []

    def __call__(self, arrangement: Arrangement) -> Summary:
        pools = arrangement.pools()
        self.runs.append(tuple(pool.replicas.max for pool in pools.values()))
        share = {key: min(1.0, pool.replicas.max / self.needs[key]) for key, pool in pools.items()}
        models = []
        for name, model in arrangement.spec.models.items():
            ttft = share.get((Role.PREFILL, model.prefill), A_SHARE_OF_1)
            models.append(a_model(name, ttft, share[Role.DECODE, model.decode]))
        return a_summary(
            arrangement,
            min(model.good_share for model in models),
            tuple(models),
            tuple(
                a_pool(key, pool.replicas.max, waiting=10.0 if share[key] < 1 else 0.0)
                for key, pool in pools.items()
            ),
        )


def a_model(name: str, ttft_ok: float, tpot_ok: float) -> ModelSummary:
    return ModelSummary(
        name=name,
        requests=100,
        refused=0,
        ttft_p95_ms=1.0,
        tpot_p50_ms=1.0,
        tpot_p95_ms=1.0,
        good_share=min(ttft_ok, tpot_ok),
        ttft_missed_share=1 - ttft_ok,
        tpot_missed_share=1 - tpot_ok,
    )


def a_pool(key: PoolKey, replicas: int, waiting: float) -> PoolSummary:
    return PoolSummary(
        role=key[0],
        name=key[1],
        replicas=replicas,
        replicas_mean=replicas,
        gpus=replicas,
        utilization=0.5,
        mean_batch=1.0,
        preemptions=0,
        running_mean=1.0,
        waiting_mean=waiting,
        kv_use_mean=0.1,
        kv_use_peak=0.2,
    )


def a_summary(
    arrangement: Arrangement, good: float, models: tuple[ModelSummary, ...], pools: tuple[PoolSummary, ...]
) -> Summary:
    return Summary(
        topology=arrangement.topology,
        workload="a formula",
        seed=0,
        slo=Slo(ttft_ms=1, tpot_ms=1),
        duration_s=1,
        window_s=1,
        elapsed_s=1,
        wall_s=0,
        gpus=arrangement.gpus,
        gpu_hours=0.0,
        resized=0,
        requests=100,
        refused_share=0,
        unfinished=0,
        ttft_ms=Percentiles(),
        tpot_ms=Percentiles(),
        end_to_end_ms=Percentiles(),
        session_ms=Percentiles(),
        output_tokens_per_s=1,
        output_tokens_per_s_per_gpu=1,
        goodput_per_s=1,
        goodput_per_s_per_gpu=1,
        good_share=good,
        prefix_hit_ratio=0,
        handoff_gib=0,
        pools=pools,
        models=models,
    )


SUN = {(Role.PREFILL, "model-0"): 3, (Role.PREFILL, "model-1"): 1, (Role.DECODE, "shared"): 6}


def sizes(arrangement: Arrangement | None) -> dict[PoolKey, int]:
    assert arrangement is not None
    return {key: pool.replicas.max for key, pool in arrangement.pools().items()}


def test_the_smallest_cluster_is_found_exactly() -> None:
    found = find_min_gpus(Plant(SUN), arrange(a_spec(), "spec"), attainment=1.0)
    assert found.complete
    assert sizes(found.arrangement) == SUN
    assert found.summary is not None
    assert found.summary.gpus == 10


def test_what_is_missing_decides_which_pool_grows() -> None:
    plant = Plant({(Role.PREFILL, "model-0"): 1, (Role.PREFILL, "model-1"): 1, (Role.DECODE, "shared"): 8})
    find_min_gpus(plant, arrange(a_spec(), "spec"), attainment=1.0)
    assert plant.runs[:4] == [(1, 1, 1), (1, 1, 2), (1, 1, 4), (1, 1, 8)]


def test_a_pool_in_whose_queue_requests_wait_grows_although_ttft_is_what_they_miss() -> None:
    def run(arrangement: Arrangement) -> Summary:
        decode = arrangement.spec.decode["shared"].replicas.max
        pools = tuple(
            a_pool(key, pool.replicas.max, waiting=8.0 if key[0] is Role.DECODE else 1.0)
            for key, pool in arrangement.pools().items()
        )
        good = min(1.0, decode / 4)
        models = tuple(a_model(name, good, 1.0) for name in arrangement.spec.models)
        return a_summary(arrangement, good, models, pools)

    found = find_min_gpus(run, arrange(a_spec(), "spec"), attainment=1.0)
    assert sizes(found.arrangement)[Role.DECODE, "shared"] == 4
    assert len(found.trials) == 4  # 1, 2, 4; then 3 is too few, and prefill pools have nothing to give


def test_a_wrong_guess_about_the_bottleneck_does_not_end_the_search() -> None:
    def run(arrangement: Arrangement) -> Summary:
        good = min(1.0, arrangement.spec.decode["shared"].replicas.max / 4)
        pools = tuple(
            a_pool(key, pool.replicas.max, waiting=9.0 if key[0] is Role.PREFILL else 0.0)
            for key, pool in arrangement.pools().items()
        )
        return a_summary(
            arrangement, good, tuple(a_model(n, good, 1.0) for n in arrangement.spec.models), pools
        )

    found = find_min_gpus(run, arrange(a_spec(), "spec"), attainment=1.0)
    assert list(sizes(found.arrangement).values()) == [1, 1, 4]


def test_no_cluster_runs_twice_and_the_search_is_deterministic() -> None:
    first, second = Plant(SUN), Plant(SUN)
    find_min_gpus(first, arrange(a_spec(), "spec"), attainment=0.9)
    find_min_gpus(second, arrange(a_spec(), "spec"), attainment=0.9)
    assert first.runs == second.runs
    assert len(set(first.runs)) == len(first.runs)


def test_what_never_suffices_is_said() -> None:
    plant = Plant(SUN)
    found = find_min_gpus(plant, arrange(a_spec(), "spec"), attainment=1.0, max_gpus=8)
    assert found.arrangement is None
    assert found.complete
    assert "nothing up to 8 GPUs suffices" in found.remark
    assert max(trial.gpus for trial in found.trials) == 8


def test_larger_replicas_count_with_all_their_gpus() -> None:
    found = find_min_gpus(Plant(SUN), arrange(a_spec(decode_gpus=4), "spec"), attainment=1.0)
    assert found.summary is not None
    assert found.summary.gpus == 3 + 1 + 6 * 4


def test_runs_are_bounded() -> None:
    plant = Plant(SUN)
    found = find_min_gpus(plant, arrange(a_spec(), "spec"), attainment=1.0, max_runs=2)
    assert len(plant.runs) == 2
    assert (found.arrangement, found.complete) == (None, False)
    assert "nothing found yet after 2 runs" in found.remark


def test_one_pool_alone_is_sized_too() -> None:
    plant = Plant({(Role.DECODE, "shared"): 5})
    found = find_min_gpus(plant, arrange(a_spec(), "colocated"), attainment=1.0)
    assert sizes(found.arrangement) == {(Role.DECODE, "shared"): 5}


def test_every_try_is_told() -> None:
    told: list[Trial] = []
    found = find_min_gpus(Plant(SUN), arrange(a_spec(), "spec"), attainment=1.0, on_trial=told.append)
    assert tuple(told) == found.trials
    assert [trial.number for trial in told] == list(range(1, len(told) + 1))
    assert not told[0].met


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (lambda plant, spec: find_min_gpus(plant, spec, attainment=0.0), "cannot be reached"),
        (lambda plant, spec: find_min_gpus(plant, spec, max_gpus=2), "takes 3 GPUs"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    search: Callable[[Plant, Arrangement], object], said: str
) -> None:
    with pytest.raises(HeliostatError, match=said):
        search(Plant(SUN), arrange(a_spec(), "spec"))
