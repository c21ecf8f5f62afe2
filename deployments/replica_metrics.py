"""A replica's own figures as Ray metrics: what it carries now, and the ledger of its handoffs.

A replica tells them itself, because it alone has them whole: routers see a part of the tickets each.
Tags are role and pool, of handoffs also the transport, the KV domain (which follows from the operator's
modules), and how a ticket ended or why a copy failed (enums). Replicas are told apart by Ray's `WorkerId`.
"""

from collections.abc import Callable
from typing import NamedTuple

from deployments.metric_kinds import Increments, MetricKinds, RayMetrics, Tags
from heliostat.status import HandoffFigures
from heliostat.wire import Load, Role

PUBLISH_S = 5.0
"""Between two looks of Ray's metrics at a replica; Ray hands them on every 10 s at most."""


class _LoadGauge(NamedTuple):
    name: str
    description: str
    read: Callable[[Load], float]


LOAD_GAUGES = (
    _LoadGauge("running_requests", "Requests that the replica computes.", lambda load: load.running),
    _LoadGauge("waiting_requests", "Requests that wait in the replica.", lambda load: load.waiting),
    _LoadGauge(
        "queued_prompt_tokens",
        "Prompt tokens accepted whose first token is not out.",
        lambda load: load.queued_prompt_tokens,
    ),
    _LoadGauge("kv_use_ratio", "KV blocks in use, 0 to 1.", lambda load: load.kv_use),
    _LoadGauge("kv_tokens", "KV that the replica holds at most, in tokens.", lambda load: load.kv_tokens),
    _LoadGauge("step_seconds", "What a decode step takes now.", lambda load: load.tpot_ms / 1000),
    _LoadGauge(
        "prefill_rate_tokens_per_second",
        "Prompt tokens per second while the replica computes prompts.",
        lambda load: load.prefill_tokens_per_s,
    ),
)


class _Sum(NamedTuple):
    name: str
    description: str
    read: Callable[[HandoffFigures], float]


LEDGER_SUMS = (
    _Sum("copies_total", "Copies of KV, saves or loads.", lambda f: f.copies),
    _Sum("bytes_total", "KV that these copies moved.", lambda f: f.num_bytes),
    _Sum("copy_seconds_total", "Time of these copies.", lambda f: f.ms / 1000),
    _Sum("hidden_seconds_total", "The part that no request waited for.", lambda f: f.hidden_ms / 1000),
    _Sum(
        "stranded_block_seconds_total",
        "KV blocks times the seconds for which they were kept for a reader who never came.",
        lambda f: f.stranded_block_s,
    ),
)

TICKET_OUTCOMES = ("committed", "admitted", "released", "expired")
"""As `HandoffFigures` counts them."""


class ReplicaMetrics:
    """All metrics of one replica."""

    def __init__(self, role: Role, pool: str, kinds: MetricKinds | None = None) -> None:
        kinds = kinds or RayMetrics()
        self._tags: Tags = {"role": role.value, "pool": pool}
        own, handoffs = ("role", "pool"), ("role", "pool", "transport", "domain")

        def ledger(name: str, description: str, *more: str) -> Increments:
            return Increments(kinds.counter(f"heliostat_ledger_{name}", description, (*handoffs, *more)))

        self._load = [
            (gauge.read, kinds.gauge(f"heliostat_replica_{gauge.name}", gauge.description, own))
            for gauge in LOAD_GAUGES
        ]
        self._open = kinds.gauge("heliostat_ledger_open_tickets", "Tickets that are not over.", handoffs)
        self._tickets = ledger("tickets_total", "Tickets, by what became of them.", "outcome")
        self._sums = [(entry.read, ledger(entry.name, entry.description)) for entry in LEDGER_SUMS]
        self._failures = ledger("failures_total", "Copies that failed, by class.", "kind")

    def publish(self, load: Load, handoffs: tuple[HandoffFigures, ...]) -> None:
        """Tell Ray what is new since the last time."""
        for read_load, gauge in self._load:
            gauge.set(read_load(load), self._tags)
        for figures in handoffs:
            tags = {**self._tags, "transport": figures.transport, "domain": figures.domain}
            self._open.set(figures.open, tags)
            for outcome in TICKET_OUTCOMES:
                self._tickets.grown_to(getattr(figures, outcome), {**tags, "outcome": outcome})
            for read_sum, total in self._sums:
                total.grown_to(read_sum(figures), tags)
            for kind, count in figures.failures.items():
                self._failures.grown_to(count, {**tags, "kind": kind})
