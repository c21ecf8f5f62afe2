"""Policies: the cheapest replica first, and why."""

from heliostat.wire import Load
from router.policy import POLICIES, Candidate, FewestQueuedTokens, LeastLoad


def candidate(
    replica: str, *, queued: int = 0, running: int = 0, waiting: int = 0, kv_use: float = 0.0, sent: int = 0
) -> Candidate:
    load = Load(replica, running, waiting, queued, kv_use, sequence=1)
    return Candidate(replica, load, in_flight=sent, in_flight_tokens=sent)


def order(policy: FewestQueuedTokens | LeastLoad, *candidates: Candidate) -> list[str]:
    return [choice.replica for choice in policy.rank(candidates)]


def test_prefill_goes_where_fewest_prompt_tokens_wait() -> None:
    one_long, many_short = (
        candidate("one long", queued=900, running=1),
        candidate("many", queued=40, running=8),
    )
    assert order(FewestQueuedTokens(), one_long, many_short) == ["many", "one long"]


def test_prefill_counts_what_was_sent_since_the_last_report() -> None:
    stale, honest = candidate("stale", queued=0, sent=500), candidate("honest", queued=100)
    assert order(FewestQueuedTokens(), stale, honest) == ["honest", "stale"]


def test_decode_goes_where_fewest_requests_are() -> None:
    busy, idle = candidate("busy", running=3, waiting=2), candidate("idle", running=4)
    assert order(LeastLoad(), busy, idle) == ["idle", "busy"]


def test_decode_breaks_ties_by_kv_use() -> None:
    full, empty = candidate("full", running=2, kv_use=0.9), candidate("empty", running=2, kv_use=0.1)
    assert order(LeastLoad(), full, empty) == ["empty", "full"]


def test_decode_counts_what_was_sent_since_the_last_report() -> None:
    assert order(LeastLoad(), candidate("a", sent=5), candidate("b", running=2)) == ["b", "a"]


def test_a_replica_without_a_report_is_judged_by_the_own_count() -> None:
    unknown = Candidate("new", None, in_flight=0, in_flight_tokens=0)
    for policy in (LeastLoad(), FewestQueuedTokens()):
        assert order(policy, candidate("known", running=1, queued=1), unknown) == ["new", "known"]


def test_equal_costs_keep_the_order_of_the_candidates() -> None:
    for policy in POLICIES.values():
        ranked = policy.rank([candidate("b"), candidate("a"), candidate("c")])
        assert [choice.replica for choice in ranked] == ["b", "a", "c"]


def test_every_policy_ranks_every_candidate_once_with_a_reason() -> None:
    candidates = [candidate(str(i), queued=i % 3, running=i % 4) for i in range(20)]
    for policy in POLICIES.values():
        choices = policy.rank(candidates)
        assert sorted(choice.replica for choice in choices) == sorted(c.replica for c in candidates)
        assert [choice.cost for choice in choices] == sorted(choice.cost for choice in choices)
        assert all(choice.reason for choice in choices)


def test_of_equals_the_replica_that_has_the_prompt_is_best() -> None:
    empty = Candidate("empty", None, in_flight=0, in_flight_tokens=0)
    computing = Candidate("computing", None, in_flight=1, in_flight_tokens=300, cached_tokens=300)
    assert order(FewestQueuedTokens(), empty, computing) == ["computing", "empty"]


def test_a_prompt_that_is_there_does_not_outweigh_a_longer_queue() -> None:
    empty = Candidate("empty", None, in_flight=0, in_flight_tokens=0)
    busy = Candidate("busy", None, in_flight=3, in_flight_tokens=900, cached_tokens=300)
    assert order(FewestQueuedTokens(), busy, empty) == ["empty", "busy"]
