"""What Prometheus gets to see, over metrics that only remember."""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

import pytest

from deployments.metric_kinds import MetricKinds, RayMetrics
from deployments.metrics import Metrics
from heliostat.spec import Family, Model, Pool, Spec
from heliostat.wire import Role
from router.accounts import Accounts, Outcome
from router.admission import ModelCounts, PoolFigures, Reason
from router.histogram import Histogram
from router.loop_watch import LoopWatch
from router.trace import Trace

POOL = Pool(weights="w", gpus=2)
SPEC = Spec(
    family=Family(base="b"),
    prefill={"shared": POOL},
    decode={"d": POOL},
    models={name: Model(prefill="shared", decode="d") for name in ("math", "code")},
)
TRACE = Trace(
    prefill_replica="p0", cached_tokens=32, output_tokens=11, handoff_bytes=1000, attempts=2,
    started_s=1.0, admitted_s=1.1, prefilled_s=1.5, first_token_s=2.0,
)  # fmt: skip


class FakeKinds(MetricKinds, Protocol):
    """tests/deployments/conftest.py has it."""

    def values(self, name: str, *tags: str) -> list[float]: ...


class FakeAdmission:
    def __init__(self) -> None:
        self.now = ModelCounts()

    def counts(self, model: str) -> ModelCounts:
        return replace(self.now)


class FakePools:
    figures = PoolFigures(3, 2, 8.0, 5.0, 4096.0, 250.0)
    failed = 0

    def slots(self, role: Role, pool: str) -> PoolFigures:
        return self.figures

    def failed_legs(self, role: Role, pool: str) -> int:
        return self.failed if role is Role.PREFILL else 0


class StillTimer:
    def cancel(self) -> None:
        pass


class StillLoop:
    """Never calls back; only for a watch that has not begun."""

    def time(self) -> float:
        return 0.0

    def call_at(self, when: float, callback: object) -> StillTimer:
        return StillTimer()


@dataclass
class House:
    """A `Metrics` and all that it reads."""

    kinds: FakeKinds
    accounts: Accounts = field(default_factory=lambda: Accounts(SPEC, lambda: 3.0))
    admission: FakeAdmission = field(default_factory=FakeAdmission)
    pools: FakePools = field(default_factory=FakePools)
    spec: Spec = SPEC
    watch: LoopWatch = field(default_factory=lambda: LoopWatch(StillLoop()))

    def __post_init__(self) -> None:
        self.metrics = Metrics(
            self.spec, self.accounts, self.admission, self.pools, self.watch, Histogram(), self.kinds
        )


@pytest.fixture
def house(fake_kinds: FakeKinds) -> House:
    return House(fake_kinds)


def test_counters_are_increments_and_told_once(house: House) -> None:
    house.accounts.ended("math", tuple(range(100)), TRACE, Outcome.FINISHED)
    house.metrics.publish()
    house.metrics.publish()
    house.accounts.ended("math", tuple(range(50)), TRACE, Outcome.FAILED)
    house.metrics.publish()
    values = house.kinds.values
    assert values("prompt_tokens_total", "math") == [100, 50]
    assert values("pool_prompt_tokens_total", "prefill", "shared") == [100, 50]
    assert values("requests_total", "math", "finished") == [1]
    assert values("requests_total", "math", "failed") == [1]
    assert values("pool_requests_total", "decode", "d", "finished") == [1]
    assert values("decode_slot_seconds_total", "math") == pytest.approx([1.5, 1.5])
    assert values("transfer_bytes_total", "math") == [1000, 1000]
    assert values("failovers_total", "math") == [1, 1]
    assert values("cached_tokens_total", "code") == []


def test_two_models_of_a_pool_are_told_together_and_apart(house: House) -> None:
    house.accounts.ended("math", tuple(range(100)), replace(TRACE, cached_tokens=0), Outcome.FINISHED)
    house.accounts.ended("code", tuple(range(100)), replace(TRACE, cross_model_tokens=32), Outcome.FINISHED)
    house.metrics.publish()
    values = house.kinds.values
    assert values("cross_model_cached_tokens_total", "code") == [32]
    assert values("pool_cross_model_cached_tokens_total", "prefill", "shared") == [32]
    assert values("pool_output_tokens_total", "decode", "d") == [22]


def test_stages_are_seconds_of_their_own_pool_and_observed_once(house: House) -> None:
    house.accounts.ended("math", tuple(range(100)), TRACE, Outcome.FINISHED)
    house.metrics.publish()
    house.metrics.publish()
    values = house.kinds.values
    # Each is the middle of its bucket.
    assert values("stage_seconds", "math", "prefill", "shared", "ttft") == pytest.approx([0.85])
    assert values("stage_seconds", "math", "decode", "d", "tpot") == pytest.approx([0.085])
    assert values("stage_seconds", "math", "decode", "d", "e2e") == pytest.approx([1.75])
    house.accounts.ended("math", tuple(range(100)), TRACE, Outcome.FINISHED)
    house.metrics.publish()
    assert len(values("stage_seconds", "math", "prefill", "shared", "ttft")) == 2


def test_admission_counts_are_told(house: House) -> None:
    house.admission.now = ModelCounts(queued=4, running=2, admitted=7, cancelled=1)
    house.admission.now.refused[Reason.QUEUE_FULL] = 3
    house.metrics.publish()
    house.metrics.publish()
    values = house.kinds.values
    assert values("admission_queued_requests", "math") == [4, 4]
    assert values("admission_running_requests", "math") == [2, 2]
    assert values("admission_admitted_total", "math") == [7]
    assert values("admission_cancelled_total", "math") == [1]
    assert values("admission_refused_total", "math", "max_queued") == [3]


def test_pool_telemetry_is_told_also_when_nobody_answers(house: House) -> None:
    house.metrics.publish()
    values = house.kinds.values
    assert values("pool_replicas", "prefill", "shared") == [3]
    assert values("pool_fresh_replicas", "decode", "d") == [2]
    assert values("pool_slots", "decode", "d") == [8]
    assert values("pool_running_requests", "decode", "d") == [5]
    assert values("pool_free_kv_tokens", "decode", "d") == [4096]
    assert values("pool_prefill_wait_seconds", "prefill", "shared") == [0.25]
    house.pools.figures = PoolFigures(prefill_wait_ms=math.inf)
    house.metrics.publish()
    assert values("pool_prefill_wait_seconds", "prefill", "shared") == [0.25, math.inf]


def test_stalls_of_the_event_loop_are_told_in_seconds(house: House) -> None:
    house.watch.stalls.add(4.0, times=2)
    house.metrics.publish()
    house.metrics.publish()
    assert house.kinds.values("event_loop_stall_seconds") == pytest.approx([0.004, 0.004])
    assert house.kinds.values("event_loop_stall_p99_seconds") == [0, 0]


def test_rays_own_metrics_can_be_made_and_used_without_a_cluster(house: House) -> None:
    metrics = Metrics(
        SPEC, house.accounts, house.admission, house.pools, house.watch, Histogram(), RayMetrics()
    )
    house.accounts.ended("math", tuple(range(100)), TRACE, Outcome.FINISHED)
    metrics.publish()


def test_a_removed_models_counters_stay_and_its_gauges_go_down(house: House) -> None:
    house.accounts.ended("math", tuple(range(100)), TRACE, Outcome.FINISHED)
    house.admission.now = ModelCounts(running=1)
    house.metrics.publish()
    house.accounts.remove("math")
    house.accounts.ended("math", tuple(range(50)), TRACE, Outcome.FINISHED)
    house.admission.now = ModelCounts()
    house.metrics.publish()
    values = house.kinds.values
    assert values("prompt_tokens_total", "math") == [100, 50]
    assert values("pool_prompt_tokens_total", "prefill", "shared") == [100, 50]
    assert values("admission_running_requests", "math") == [1, 0]


def test_a_model_that_comes_back_on_other_pools_counts_on(house: House) -> None:
    house.accounts.ended("math", tuple(range(100)), TRACE, Outcome.FINISHED)
    house.metrics.publish()
    house.accounts.remove("math")
    house.accounts.add("math", Model(prefill="new", decode="d"))
    house.accounts.ended("math", tuple(range(50)), TRACE, Outcome.FINISHED)
    house.metrics.publish()
    values = house.kinds.values
    assert values("prompt_tokens_total", "math") == [100, 50]
    for pool in ("shared", "new"):
        assert len(values("stage_seconds", "math", "prefill", pool, "ttft")) == 1


def test_failed_legs_targets_and_savings_are_told(house: House) -> None:
    house.pools.failed = 3
    house.metrics.publish()
    house.metrics.publish()
    values = house.kinds.values
    assert values("pool_failed_legs_total", "prefill", "shared") == [3]
    assert values("pool_failed_legs_total", "decode", "d") == []
    assert values("pool_target_seconds", "prefill", "shared") == []
    # Two models on three replicas in each pool: dedicated would take as many again.
    assert values("saved_replicas") == [6, 6]
    assert values("saved_gpus") == [12, 12]


def test_a_pools_target_is_told_in_seconds(fake_kinds: FakeKinds) -> None:
    pools = {"prefill": {"shared": POOL.model_copy(update={"ttft_ms": 1500, "tpot_ms": 1})}}
    pools["decode"] = {"d": POOL.model_copy(update={"ttft_ms": 1, "tpot_ms": 40})}
    house = House(fake_kinds, spec=SPEC.model_copy(update=pools))
    house.metrics.publish()
    assert fake_kinds.values("pool_target_seconds", "prefill", "shared") == [1.5]
    assert fake_kinds.values("pool_target_seconds", "decode", "d") == [0.04]


def test_a_models_pools_are_told_until_it_leaves_them(house: House) -> None:
    house.metrics.publish()
    house.accounts.remove("math")
    house.metrics.publish()
    house.accounts.add("math", Model(prefill="new", decode="d"))
    house.metrics.publish()
    values = house.kinds.values
    assert values("model_pool", "math", "prefill", "shared") == [1, 0, 0]
    assert values("model_pool", "math", "prefill", "new") == [1]
    assert values("model_pool", "math", "decode", "d")[:2] == [1, 0]
    assert values("model_pool", "code", "decode", "d") == [1, 1, 1]
