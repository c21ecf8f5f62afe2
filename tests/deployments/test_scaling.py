"""Pools of different applications decide together, as Serve calls their policies."""

import logging
import re

import pytest
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments import scaling_board
from deployments.app import pool_scale
from deployments.scaling import autoscaling_config
from deployments.scaling_board import ScalingBoard
from deployments.scaling_stats import Doors, to_load, to_served, to_stats
from heliostat.spec import Autoscale, Family, Model, Pool, Replicas, Spec
from heliostat.wire import Door, Load, Role, StepTime
from router.scaling import Served

QUICK = Autoscale(up_delay_s=2, down_delay_s=5, start_s=2, idle_s=5)
SPEC = Spec(
    family=Family(base="b"),
    prefill={
        "home": Pool(weights="w", replicas=Replicas(min=1, max=4), ttft_ms=1000, autoscale=QUICK),
        "rare": Pool(weights="w", replicas=Replicas(min=0, max=1), autoscale=QUICK),
    },
    decode={"base": Pool(weights="w")},
    models={
        "first": Model(prefill="home", decode="base"),
        "second": Model(prefill="rare", decode="base"),
    },
)
LOAD = Load(
    "r", running=3, waiting=2, queued_prompt_tokens=5000, kv_use=0.5, sequence=9, max_running=8,
    context_tokens=700, kv_tokens=2000, step=StepTime(5.0, 0.25, 0.001), prefill_tokens_per_s=1000.0,
)  # fmt: skip


class Value:
    """One point of a series, as Serve keeps it."""

    def __init__(self, value: float) -> None:
        self.timestamp, self.value = 0.0, value


class Gauge:
    def __init__(self, values: dict[tuple[str, ...], float], name: str) -> None:
        self._values, self._name = values, name

    def set(self, value: float, tags: dict[str, str]) -> None:
        self._values[self._name, *tags.values()] = value


class Kinds:
    """Metrics that a test can read."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def gauge(self, name: str, description: str, tag_keys: tuple[str, ...]) -> Gauge:
        return Gauge(self.values, name)


class Controller:
    """Serve's controller as policies see it: their own pool, and nothing of the others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kinds, self.now_s = Kinds(), 5000.0
        monkeypatch.setattr(scaling_board, "BOARD", ScalingBoard(self.kinds))
        self.configs = {key: autoscaling_config(SPEC, *key) for key in SPEC.pools()}
        # As Serve does: pickled by the deploying process, made from its keywords in the controller.
        self.policies = {
            key: config.policy.get_policy()(**config.policy.policy_kwargs)
            for key, config in self.configs.items()
        }
        self.sizes = {key: config.min_replicas for key, config in self.configs.items()}
        self.stats = dict.fromkeys(self.configs, to_stats(LOAD, Served(), Door()))
        self.queued_calls = dict.fromkeys(self.configs, 0.0)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.now_s += 0.1
            for key, policy in self.policies.items():
                self.sizes[key], state = policy(self.context(key))
                assert state == {}

    def context(self, key: tuple[Role, str]) -> AutoscalingContext:
        size = self.sizes[key]
        raw = {
            name: {f"{key[1]}#{number}": [Value(-1.0), Value(value)] for number in range(size)}
            for name, value in self.stats[key].items()
        }
        return AutoscalingContext(
            deployment_id=None, deployment_name="d", app_name="a", current_num_replicas=size,
            target_num_replicas=size, running_replicas=[], total_num_requests=0.0,
            total_queued_requests=lambda: self.queued_calls[key], aggregated_metrics=None,
            raw_metrics=lambda: raw, capacity_adjusted_min_replicas=0, capacity_adjusted_max_replicas=9,
            policy_state={}, last_scale_up_time=None, last_scale_down_time=None, current_time=self.now_s,
            config=self.configs[key],
        )  # fmt: skip


def test_a_replicas_figures_survive_as_numbers() -> None:
    served = Served().with_prompt(100, 40)
    stats = to_stats(LOAD, served, Door(1, 20, 300))
    assert all(isinstance(value, int | float) for value in stats.values()), "Serve takes nothing else"
    back = to_load("r", stats)
    for field in ("running", "waiting", "queued_prompt_tokens", "kv_use", "max_running", "context_tokens"):
        assert getattr(back, field) == getattr(LOAD, field)
    assert (back.step, back.prefill_tokens_per_s) == (LOAD.step, LOAD.prefill_tokens_per_s)
    assert to_served(stats) == served == Served(1, 100, 60, 3600)


def test_doors_of_all_routers_add_up_until_one_is_silent() -> None:
    doors = Doors()
    doors.heard("a", Door(1, 10, 100), 0.0)
    doors.heard("b", Door(2, 20, 200), 5.0)
    doors.heard("a", Door(3, 30, 300), 5.0)
    assert doors.all(6.0) == Door(5, 50, 500)
    doors.heard("b", Door(0, 0, 201), 20.0)
    assert doors.all(20.0) == Door(0, 0, 201)


def test_pools_of_different_applications_are_decided_on_one_board(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = Controller(monkeypatch)
    home, rare, base = serve.configs
    serve.stats[home] = to_stats(LOAD, Served(10, 1000, 1000, 100_000), Door())
    serve.run(1)
    for second in range(2, 12):
        served = Served(10 * second, 5000 * second, 5000 * second, 100_000 * second)
        serve.stats[home] = to_stats(LOAD, served, Door())
        serve.run(1)
    assert serve.sizes == {home: 4, rare: 0, base: 1}, "the pool that grows is asked for, and no other"
    assert serve.kinds.values["heliostat_pool_wanted_replicas", "prefill", "home"] == 4
    assert serve.kinds.values["heliostat_pool_serving_replicas", "prefill", "home"] == 4
    kinds = {key[3] for key, value in serve.kinds.values.items() if key[:3] == SCALING_HOME and value}
    assert len(kinds) == 1


SCALING_HOME = ("heliostat_pool_scaling", "prefill", "home")


def test_a_call_that_waits_in_a_handle_wakes_a_pool_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = Controller(monkeypatch)
    rare = (Role.PREFILL, "rare")
    serve.stats[rare] = to_stats(Load("r", 0, 0, 0, 0.0, 0), Served(), Door())
    serve.run(10)
    assert serve.sizes[rare] == 0
    serve.queued_calls[rare] = 1.0
    serve.run(1.5)
    assert serve.sizes[rare] == 1
    serve.queued_calls[rare] = 0.0
    serve.run(20)
    assert serve.sizes[rare] == 0


def test_the_controllers_board_is_not_copied_with_the_policy() -> None:
    config = autoscaling_config(SPEC, Role.PREFILL, "home")
    assert config is not None
    policy = AutoscalingConfig.model_validate(config.model_dump()).policy.get_policy()
    assert policy.__call__.__globals__["scaling_board"] is scaling_board


def test_a_spec_without_a_pool_that_scales_has_numbers_and_one_with_has_bounds() -> None:
    still = SPEC.model_copy(update={"prefill": {"home": Pool(weights="w", replicas=Replicas(min=2, max=2))}})
    assert autoscaling_config(still, Role.PREFILL, "home") is None
    assert pool_scale(still, Role.PREFILL, "home").given()["num_replicas"] == 2
    scaled = pool_scale(SPEC, Role.PREFILL, "home")
    assert "num_replicas" not in scaled.given()
    config = scaled.autoscaling_config
    assert config is not None
    assert (config.min_replicas, config.max_replicas) == (1, 4)
    assert (config.upscale_delay_s, config.downscale_delay_s) == (0, 0)


def test_the_line_on_the_page_is_one_of_the_logs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, shown: str
) -> None:
    caplog.set_level(logging.INFO)
    serve = Controller(monkeypatch)
    home = (Role.PREFILL, "home")
    for second in range(12):
        served = Served(10 * second, 5000 * second, 5000 * second, 100_000 * second)
        serve.stats[home] = to_stats(LOAD, served, Door())
        serve.run(1)
    without_figures = {re.sub(r"\d+", "0", line.replace("home", "math")) for line in caplog.messages}
    assert re.sub(r"\d+", "0", shown.strip()) in without_figures
