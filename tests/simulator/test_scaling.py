"""Pools that grow, shrink and sleep in virtual time, and what their GPUs are counted for."""

from itertools import pairwise
from pathlib import Path

import pytest

from heliostat.spec import Autoscale, Family, Limits, Model, Pool, Replicas, SimTiming, Spec
from simulator.outcome import Outcome
from simulator.profile import Hardware
from simulator.router import Options
from simulator.run import simulate
from simulator.scaling import Scaling
from simulator.topology import arrange
from simulator.workload import WorkloadConfig, make_workload
from simulator.workload.lengths import Fixed

QUICK = Autoscale(up_delay_s=5, down_delay_s=60, start_s=20, idle_s=100, cold_start_s=60)
SIM = SimTiming(prefill_tokens_per_s=10_000, step_ms=5, per_request_ms=0.2, kv_tokens=200_000)


PATIENT = Limits(queue_s=3600, max_queued=100_000)


def pool(least: int, most: int, autoscale: Autoscale = QUICK, **target: float) -> Pool:
    replicas = Replicas(min=least, max=most)
    return Pool(weights="w", engine="sim", sim=SIM, replicas=replicas, autoscale=autoscale, **target)


def spec(prefill: Pool, decode: Pool) -> Spec:
    return Spec(
        family=Family(base="b"),
        prefill={"p": prefill},
        decode={"d": decode},
        models={"m": Model(prefill="p", decode="d", limits=PATIENT)},
    )


SCALED = spec(pool(1, 6, ttft_ms=1000), pool(1, 4, tpot_ms=10))


def run(spec: Spec, scaling: Scaling | None = None, **load: object) -> Outcome:
    keys = {"kind": "poisson", "duration_s": 300.0, "prompt": Fixed(tokens=1000), "output": Fixed(tokens=100)}
    workload = make_workload(WorkloadConfig.model_validate(keys | load), tuple(spec.models))
    options = Options(scaling=scaling or Scaling())
    return simulate(arrange(spec, "spec"), workload, Hardware(), directory=Path(), seed=3, options=options)


def comebacks(sizes: list[int]) -> int:
    """How often a pool grew again after it had shrunk."""
    steps = [after - before for before, after in pairwise(sizes) if after != before]
    return sum(before < 0 < after for before, after in pairwise(steps))


BURST = {"kind": "bursts", "rate_per_s": 2.0, "burst_factor": 15.0, "burst_s": 40.0, "period_s": 150.0}


def test_pools_grow_in_a_burst_and_shrink_after_it_without_losing_a_request() -> None:
    outcome = run(SCALED, **BURST)
    prefill = outcome.pools["prefill.p"]
    assert max(prefill.sizes) >= 4, "30 prompts of 0.1 s arrive per second"
    peak = prefill.sizes.index(max(prefill.sizes))
    assert prefill.sizes[0] == 1 and min(prefill.sizes[peak:]) < max(prefill.sizes)
    assert not any(outcome.requests.refused) and not outcome.unfinished
    assert min(outcome.requests.output_tokens) == 100
    assert outcome.resized >= 4
    assert all(comebacks(each.sizes) <= 1 for each in outcome.pools.values()), "two bursts, one way down"


def test_equal_runs_are_equal() -> None:
    one, other = run(SCALED, **BURST), run(SCALED, **BURST)
    assert one.requests == other.requests and one.pools == other.pools


def test_a_replica_that_takes_long_to_start_helps_later() -> None:
    quick = run(SCALED, Scaling(start_s=2.0), **BURST)
    slow = run(SCALED, Scaling(start_s=100.0), **BURST)

    def worst_s(outcome: Outcome) -> float:
        requests = outcome.requests
        return max(f - a for f, a in zip(requests.first_s, requests.arrived_s, strict=True))

    assert worst_s(quick) < worst_s(slow) / 2


def test_gpu_hours_are_of_the_replicas_held() -> None:
    fixed = run(spec(pool(2, 2), pool(1, 1)), rate_per_s=1.0)
    assert fixed.gpu_hours == pytest.approx(3 * fixed.duration_s / 3600)
    assert run(SCALED, **BURST).gpu_hours < 10 * 300 / 3600


def test_a_pool_at_zero_starts_with_its_first_request() -> None:
    sleepy = spec(pool(0, 2), pool(1, 1))
    outcome = run(sleepy, rate_per_s=0.004)
    requests, sizes = outcome.requests, outcome.pools["prefill.p"].sizes
    assert len(requests) >= 1 and not any(requests.refused)
    waits = [first - at for first, at in zip(requests.first_s, requests.arrived_s, strict=True)]
    assert QUICK.start_s <= waits[0] <= QUICK.start_s + 5
    assert sizes[0] == 0 and max(sizes) == 1 and sizes.count(0) > 5


def test_a_cold_start_beyond_its_bound_is_refused() -> None:
    bounded = QUICK.model_copy(update={"cold_start_s": 10.0})
    outcome = run(spec(pool(0, 1, bounded), pool(1, 1)), rate_per_s=0.004)
    assert outcome.requests.refused[0]
    waited_s = outcome.requests.end_s[0] - outcome.requests.arrived_s[0]
    assert waited_s == pytest.approx(10.0)
