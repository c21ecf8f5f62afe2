"""A router's figures as Ray metrics, which Prometheus collects: `ray_heliostat_…`.

Tags are model, pool, role, outcome and stage, and their values come from the operator and from enums alone.
Whoever owns a `Metrics` calls `publish` once a second: a request itself costs no call into Ray.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple, Protocol

from deployments.metric_kinds import GaugeMetric, Increments, MetricKinds, Observations, RayMetrics
from deployments.savings import savings
from heliostat.spec import Model, Spec
from heliostat.wire import PoolKey, Role
from router.accounts import Account, Accounts, Figures, Stage
from router.admission import PoolCapacity, PoolFigures
from router.histogram import BOUNDS_MS, Histogram
from router.live_counts import AdmissionCounts
from router.loop_watch import LoopWatch


class PoolFacts(PoolCapacity, Protocol):
    """What a router knows of its pools."""

    def failed_legs(self, role: Role, pool: str) -> int:
        """Legs of this router that failed there so far."""


class _Amount(NamedTuple):
    name: str
    description: str
    read: Callable[[Figures], float]


AMOUNTS = (
    _Amount("prompt_tokens_total", "Prompt tokens whose prefill ended.", lambda f: f.prompt_tokens),
    _Amount("cached_tokens_total", "Prompt tokens found in a prefix cache.", lambda f: f.cached_tokens),
    _Amount(
        "cross_model_cached_tokens_total",
        "Prompt tokens found in a prefix cache because another model had brought them.",
        lambda f: f.cross_model_tokens,
    ),
    _Amount("output_tokens_total", "Tokens sent to clients.", lambda f: f.output_tokens),
    _Amount("decode_slot_seconds_total", "Time in decode slots.", lambda f: f.decode_slot_s),
    _Amount("kv_byte_seconds_total", "KV held in decode slots, times time.", lambda f: f.kv_byte_s),
    _Amount("transfer_bytes_total", "KV moved by handoffs.", lambda f: f.transfer_bytes),
    _Amount("failovers_total", "Attempts beyond the first.", lambda f: f.failovers),
)
"""Exported twice: `heliostat_…` for each model, `heliostat_pool_…` for all models of a pool."""

STAGE_ROLE = {
    Stage.ADMIT: Role.DECODE,  # slots are those of the decode pool
    Stage.PREFILL: Role.PREFILL,
    Stage.HANDOFF: Role.DECODE,
    Stage.DECODE: Role.DECODE,
    Stage.TTFT: Role.PREFILL,  # where the spec has its target
    Stage.TPOT: Role.DECODE,
    Stage.E2E: Role.DECODE,
}
"""The pool that a stage is counted for: one each, so that sums over pools and over models are the same."""


class _PoolGauge(NamedTuple):
    name: str
    description: str
    read: Callable[[PoolFigures], float]


POOL_GAUGES = (
    _PoolGauge("replicas", "Replicas of the pool.", lambda f: f.replicas),
    _PoolGauge("fresh_replicas", "Replicas whose last reading is not stale.", lambda f: f.fresh),
    _PoolGauge("slots", "Requests that fresh replicas run at a time.", lambda f: f.slots),
    _PoolGauge("running_requests", "Requests in fresh replicas.", lambda f: f.running),
    _PoolGauge("free_kv_tokens", "KV space left in fresh replicas.", lambda f: f.free_kv_tokens),
    _PoolGauge(
        "prefill_wait_seconds",
        "The shortest wait before a prefill begins.",
        lambda f: f.prefill_wait_ms / 1000,
    ),
)
"""Each router's view of the pool telemetry. Infinite is a value, too (+Inf): no limit, or nobody answers."""


class Metrics:
    """All metrics of one router."""

    def __init__(
        self,
        spec: Spec,
        accounts: Accounts,
        admission: AdmissionCounts,
        pools: PoolFacts,
        loop_watch: LoopWatch,
        routing: Histogram,
        kinds: MetricKinds | None = None,
    ) -> None:
        kinds = kinds or RayMetrics()
        self._spec, self._accounts, self._admission = spec, accounts, admission
        self._pools, self._loop_watch, self._routing = pools, loop_watch, routing
        seconds = [round(bound / 1000, 7) for bound in BOUNDS_MS]

        def counter(name: str, description: str, *tag_keys: str) -> Increments:
            return Increments(kinds.counter(f"heliostat_{name}", description, tag_keys))

        def gauge(name: str, description: str, *tag_keys: str) -> GaugeMetric:
            return kinds.gauge(f"heliostat_{name}", description, tag_keys)

        def histogram(name: str, description: str, *tag_keys: str) -> Observations:
            return Observations(kinds.histogram(f"heliostat_{name}", description, seconds, tag_keys))

        ended = "Requests that are over."
        self._requests = counter("requests_total", ended, "model", "outcome")
        self._pool_requests = counter("pool_requests_total", ended, "role", "pool", "outcome")
        self._amounts = [
            (
                amount.read,
                counter(amount.name, amount.description, "model"),
                counter(f"pool_{amount.name}", amount.description, "role", "pool"),
            )
            for amount in AMOUNTS
        ]
        self._stages = histogram(
            "stage_seconds", "Parts of a request's time.", "model", "role", "pool", "stage"
        )
        self._pool_gauges = [
            (entry.read, gauge(f"pool_{entry.name}", entry.description, "role", "pool"))
            for entry in POOL_GAUGES
        ]
        self._failed_legs = counter(
            "pool_failed_legs_total", "Legs that failed, also those of requests that went on.", "role", "pool"
        )
        self._served_by = gauge(
            "model_pool",
            "1 for the two pools of a model, 0 for those that it has left.",
            "model",
            "role",
            "pool",
        )
        self._targets = gauge(
            "pool_target_seconds",
            "The spec's target: TTFT of a prefill pool, TPOT of a decode pool.",
            "role",
            "pool",
        )
        self._saved_replicas = gauge("saved_replicas", "Replicas that dedicated pools would take besides.")
        self._saved_gpus = gauge("saved_gpus", "GPUs that dedicated pools would take besides.")
        self._queued = gauge("admission_queued_requests", "Requests that wait for a slot.", "model")
        self._running = gauge("admission_running_requests", "Requests that hold a slot.", "model")
        self._admitted = counter("admission_admitted_total", "Slots granted.", "model")
        self._left = counter("admission_cancelled_total", "Requests that left the queue.", "model")
        self._refused = counter(
            "admission_refused_total", "Requests refused; the outcome is the limit.", "model", "outcome"
        )
        self._choices = histogram("routing_seconds", "What the choice of a replica takes, a leg at a time.")
        self._stalls = histogram("event_loop_stall_seconds", "How late the event loop runs a timer.")
        self._stall_p99 = gauge("event_loop_stall_p99_seconds", "The same, p99 of the last 30 s.")

    def publish(self) -> None:
        """Tell Ray what is new since the last time. To be called on the router's event loop."""
        by_model: defaultdict[str, list[Figures]] = defaultdict(list)
        served = self._accounts.served()
        for account in self._accounts.accounts():
            self._publish_pools(account, served.get(account.model))
            self._publish_stages(account)
            by_model[account.model].append(account.figures)
        for model, parts in by_model.items():
            self._publish_model(model, parts[0] if len(parts) == 1 else _sum(parts))
        replicas: dict[PoolKey, int] = {}
        for (role, pool), section in self._spec.pools().items():
            tags = {"role": role.value, "pool": pool}
            figures = self._accounts.pool(role, pool)
            for outcome, count in figures.requests.items():
                self._pool_requests.grown_to(count, {**tags, "outcome": outcome.value})
            for read, _, by_pool in self._amounts:
                by_pool.grown_to(read(figures), tags)
            seen = self._pools.slots(role, pool)
            replicas[role, pool] = seen.replicas
            self._failed_legs.grown_to(self._pools.failed_legs(role, pool), tags)
            for read_pool, gauge in self._pool_gauges:
                gauge.set(read_pool(seen), tags)
            if target_ms := section.ttft_ms if role is Role.PREFILL else section.tpot_ms:
                self._targets.set(target_ms / 1000, tags)
        saved = savings(self._spec, served.values(), replicas)
        self._saved_replicas.set(saved.replicas, {})
        self._saved_gpus.set(saved.gpus, {})
        self._choices.grown_to(self._routing, {})
        self._stalls.grown_to(self._loop_watch.stalls, {})
        self._stall_p99.set(self._loop_watch.p99_ms() / 1000, {})

    def _publish_pools(self, account: Account, now: Model | None) -> None:
        for role in Role:
            tags = {"model": account.model, "role": role.value, "pool": account.pool(role)}
            self._served_by.set(float(now is not None and now.pool(role) == account.pool(role)), tags)

    def _publish_stages(self, account: Account) -> None:
        for stage, histogram in account.figures.stages.items():
            role = STAGE_ROLE[stage]
            tags = {"model": account.model, "role": role.value, "pool": account.pool(role)}
            self._stages.grown_to(histogram, {**tags, "stage": stage.value})

    def _publish_model(self, model: str, figures: Figures) -> None:
        """Also of a model that was removed: its gauges go down to 0 as what it runs ends."""
        tags = {"model": model}
        for outcome, count in figures.requests.items():
            self._requests.grown_to(count, {**tags, "outcome": outcome.value})
        for read, by_model, _ in self._amounts:
            by_model.grown_to(read(figures), tags)
        counts = self._admission.counts(model)
        self._queued.set(counts.queued, tags)
        self._running.set(counts.running, tags)
        self._admitted.grown_to(counts.admitted, tags)
        self._left.grown_to(counts.cancelled, tags)
        for reason, count in counts.refused.items():
            self._refused.grown_to(count, {**tags, "outcome": reason.value})


def _sum(parts: list[Figures]) -> Figures:
    total = Figures()
    for part in parts:
        total.merge(part)
    return total
