"""Serve's default policy as restated for virtual time, held against Serve's own code."""

import random

import pytest
import ray.serve.autoscaling_policy as serve
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from benchmarks import autoscaling_serve
from benchmarks.autoscaling_serve import ServePool, desired


def context(requests: float, serving: int, size: int, state: dict) -> AutoscalingContext:
    return AutoscalingContext(
        deployment_id=None, deployment_name="d", app_name="a", current_num_replicas=serving,
        target_num_replicas=size, running_replicas=[], total_num_requests=requests,
        total_queued_requests=0.0, aggregated_metrics=None, raw_metrics=None,
        capacity_adjusted_min_replicas=0, capacity_adjusted_max_replicas=100, policy_state=state,
        last_scale_up_time=None, last_scale_down_time=None, current_time=0.0,
        config=AutoscalingConfig(min_replicas=0, max_replicas=100, target_ongoing_requests=3),
    )  # fmt: skip


def test_the_defaults_are_serves() -> None:
    config = AutoscalingConfig()
    assert config.target_ongoing_requests == autoscaling_serve.TARGET_ONGOING
    assert config.upscale_delay_s == autoscaling_serve.UP_DELAY_S
    assert config.downscale_delay_s == autoscaling_serve.DOWN_DELAY_S
    assert config.look_back_period_s == autoscaling_serve.LOOK_BACK_S
    assert config.get_upscaling_factor() == config.get_downscaling_factor() == 1.0


@pytest.mark.parametrize("seed", range(20))
def test_decisions_are_serves_over_a_random_hour(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    draw = random.Random(seed)
    policy = serve._apply_autoscaling_config(serve.default_autoscaling_policy)
    ours, state, size, load, changes = ServePool(3.0), {}, 1, 0.0, 0
    for now_s in range(0, 3600, 5):
        monkeypatch.setattr(serve.time, "time", lambda now_s=now_s: float(now_s))
        if draw.random() < 0.06:
            load = draw.choice([0.0, 2.0, 10.0, 40.0])
        requests = load * draw.uniform(0.9, 1.1)
        serving = max(0, size - draw.randint(0, 1))
        theirs, state = policy(context(requests, serving, size, state))
        mine = ours.after_delays(desired(3.0, requests, serving, size), serving, size, float(now_s))
        assert mine == theirs, now_s
        changes += mine != size
        size = mine
    assert changes


def test_the_mean_is_weighted_by_time() -> None:
    pool = ServePool(2.0)
    for now_s, requests in ((0.0, 10.0), (1.0, 0.0), (3.0, 4.0)):
        pool.decide(requests, 1, 1, now_s)
    assert pool.mean(3.0) == pytest.approx((10 * 1 + 0 * 2 + 4 * 2) / 5)
