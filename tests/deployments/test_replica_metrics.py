"""What a replica tells Prometheus of its load and of its ledger."""

from dataclasses import replace

import msgspec
import pytest

from deployments.metric_kinds import RayMetrics
from deployments.replica_metrics import ReplicaMetrics
from heliostat.wire import Load, Role
from kvtransfer.handoff import CopyRecord, Direction
from kvtransfer.ledger import Ledger
from kvtransfer.transport import Outcome

LOAD = Load(
    "r", running=3, waiting=2, queued_prompt_tokens=70, kv_use=0.25, sequence=1, kv_tokens=4000, tpot_ms=20
)
SAVE = CopyRecord("t", "dom", Direction.SAVE, num_blocks=4, num_bytes=1000, ms=500, hidden_ms=200)


def test_load_is_told_as_it_is(fake_kinds) -> None:
    metrics = ReplicaMetrics(Role.DECODE, "d", fake_kinds)
    metrics.publish(LOAD, ())
    metrics.publish(msgspec.structs.replace(LOAD, running=0, kv_use=0.5), ())
    values = fake_kinds.values
    assert values("replica_running_requests", "decode", "d") == [3, 0]
    assert values("replica_waiting_requests", "decode", "d") == [2, 2]
    assert values("replica_queued_prompt_tokens", "decode", "d") == [70, 70]
    assert values("replica_kv_use_ratio", "decode", "d") == [0.25, 0.5]
    assert values("replica_kv_tokens", "decode", "d") == [4000, 4000]
    assert values("replica_step_seconds", "decode", "d") == [0.02, 0.02]


def test_the_ledger_is_told_once_and_in_seconds(fake_kinds) -> None:
    metrics, ledger = ReplicaMetrics(Role.PREFILL, "p", fake_kinds), Ledger("nixl")
    for number, outcome in enumerate((Outcome.ADMITTED, Outcome.RELEASED, Outcome.EXPIRED)):
        ledger.commit(f"t{number}", "dom", num_blocks=4, now_s=0.0, lease_s=30.0)
        ledger.end(f"t{number}", outcome, now_s=2.0)
    ledger.commit("open", "dom", num_blocks=4, now_s=0.0, lease_s=30.0)
    ledger.copied(SAVE)
    ledger.copied(replace(SAVE, kind="no_space", failure="full"))
    for _ in range(2):
        metrics.publish(LOAD, ledger.figures())
    where = ("prefill", "p", "nixl", "dom")
    values = fake_kinds.values
    assert values("ledger_open_tickets", *where) == [1, 1]
    outcomes = {"committed": [4], "admitted": [1], "released": [2], "expired": [1]}
    assert {o: values("ledger_tickets_total", *where, o) for o in outcomes} == outcomes
    assert values("ledger_copies_total", *where) == [1]
    assert values("ledger_bytes_total", *where) == [1000]
    assert values("ledger_copy_seconds_total", *where) == pytest.approx([0.5])
    assert values("ledger_hidden_seconds_total", *where) == pytest.approx([0.2])
    assert values("ledger_stranded_block_seconds_total", *where) == [2 * 4 * 2.0]
    assert values("ledger_failures_total", *where, "no_space") == [1]


def test_two_kv_domains_are_told_apart(fake_kinds) -> None:
    metrics, ledger = ReplicaMetrics(Role.DECODE, "d", fake_kinds), Ledger("shm")
    ledger.copied(SAVE)
    ledger.copied(replace(SAVE, domain="other", num_bytes=7))
    metrics.publish(LOAD, ledger.figures())
    assert fake_kinds.values("ledger_bytes_total", "decode", "d", "shm", "dom") == [1000]
    assert fake_kinds.values("ledger_bytes_total", "decode", "d", "shm", "other") == [7]


def test_rays_own_metrics_take_it_without_a_cluster() -> None:
    ledger = Ledger("shm")
    ledger.copied(SAVE)
    ReplicaMetrics(Role.DECODE, "d", RayMetrics()).publish(LOAD, ledger.figures())
