"""Policies: the cheapest replica first, and why."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from heliostat.wire import Role
from router.policy import DEFAULTS, POLICIES, RANKS, Candidates, LegRequest, Policy
from router.policy.decode import MarginalLatency

FIGURES = (
    "queued_tokens",
    "prefill_rate",
    "cached_tokens",
    "running",
    "waiting",
    "max_running",
    "context_tokens",
    "free_kv_tokens",
    "kv_tokens",
    "step_base_ms",
    "step_per_request_ms",
    "step_per_token_ms",
    "in_flight",
    "age_s",
)


def pool(count: int, resting: tuple[int, ...] = (), **figures: float | list[float]) -> Candidates:
    """`count` replicas named 0, 1, 2 ...; a figure not given is 0, headroom without limit."""
    columns = {name: np.zeros(count) for name in FIGURES} | {"free_kv_tokens": np.full(count, np.inf)}
    for name, values in figures.items():
        columns[name] = np.array(np.broadcast_to(np.asarray(values, float), count))
    rests = np.isin(np.arange(count), resting)
    return Candidates(names=tuple(str(i) for i in range(count)), resting=rests, **columns)


def policy(name: str) -> Policy:
    return POLICIES[name].make()


def order(name: str, candidates: Candidates, request: LegRequest | None = None) -> list[int]:
    return list(policy(name).rank(candidates, request or LegRequest(1000, 100)).indices)


# All of them.


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, RANKS, RANKS + 1, 100])
def test_every_policy_ranks_the_best_few_once_with_a_reason(name: str, count: int) -> None:
    candidates = pool(
        count, queued_tokens=[i % 7 for i in range(count)], running=[i % 5 for i in range(count)]
    )
    for draw in (0.0, 0.37, 0.999999):
        ranking = policy(name).rank(candidates, LegRequest(100, 10, "session", draw))
        assert len(set(ranking.indices)) == len(ranking.indices) == min(count, RANKS)
        assert len(ranking.costs) == len(ranking.indices)
        assert all(ranking.reason(rank) for rank in range(len(ranking.indices)))


@pytest.mark.parametrize("name", POLICIES)
def test_replicas_that_rest_or_are_avoided_come_last_not_never(name: str) -> None:
    for draw in (0.0, 0.5, 0.99):
        request = LegRequest(1000, 100, "session", draw, frozenset({"0"}))
        assert order(name, pool(4, resting=(2,)), request)[2:] == [2, 0]


@pytest.mark.parametrize("name", [n for n in POLICIES if n not in ("round_robin", "sticky_session")])
def test_among_equals_the_draw_decides_evenly(name: str) -> None:
    candidates = pool(20, running=[0, 1] * 10, in_flight=[0, 1] * 10, queued_tokens=[0, 900] * 10)
    if name == "random":
        candidates = pool(10)
    first = Counter(order(name, candidates, LegRequest(10, 10, draw=i / 1000))[0] for i in range(1000))
    if name == "power_of_two":
        assert max(first.values()) < 150
    else:
        assert set(first.values()) == {100}


def test_each_role_has_a_default_that_is_for_it() -> None:
    for role in Role:
        assert role in POLICIES[DEFAULTS[role]].roles


# Prefill.


def test_prefill_goes_where_the_wait_is_shortest_in_milliseconds() -> None:
    candidates = pool(2, queued_tokens=[900, 500], prefill_rate=[10, 2])
    assert order("time_to_kv", candidates) == [0, 1]
    assert order("fewest_queued_tokens", candidates) == [1, 0]


def test_a_cached_prefix_is_worth_what_it_takes_to_compute_and_no_more() -> None:
    for queued, best in ((700, 0), (900, 1)):
        candidates = pool(2, queued_tokens=[queued, 0], cached_tokens=[800, 0], prefill_rate=[10, 10])
        assert order("time_to_kv", candidates)[0] == best


def test_an_unknown_rate_is_a_typical_one() -> None:
    candidates = pool(4, prefill_rate=[0, 5, 10, 10], queued_tokens=[100, 200, 50, 400])
    assert order("time_to_kv", candidates) == [2, 0, 3, 1]
    assert order("time_to_kv", pool(2, queued_tokens=[100, 50])) == [1, 0]


def test_rates_that_only_the_last_prompts_explain_herd_nobody() -> None:
    """Routers that see the same idle pool spread over it, whichever replica had the shortest prompts."""
    idle = pool(10, prefill_rate=[20, 21, 22, 23, 24, 25, 26, 27, 28, 39])
    requests = [LegRequest(1000, draw=i / 1000) for i in range(1000)]
    first = Counter(order("time_to_kv", idle, request)[0] for request in requests)
    assert set(first.values()) == {100}


def test_a_rate_that_only_other_hardware_explains_counts() -> None:
    slow = pool(3, prefill_rate=[10, 20, 20], queued_tokens=[500, 900, 900])
    assert order("time_to_kv", slow, LegRequest(1000)) == [1, 2, 0]
    fast = pool(3, prefill_rate=[40, 20, 20], queued_tokens=[900, 500, 500])
    assert order("time_to_kv", fast, LegRequest(1000))[0] == 0


def test_a_shared_prompt_makes_no_hot_spot() -> None:
    """1000 requests with one system prompt, in virtual time, at 70 % of what the pool can do."""
    replicas, rate, shared, own = 8, 10.0, 1024, 128
    chooser, draw = policy("time_to_kv"), np.random.default_rng(0)
    free_at, holds, count = np.zeros(replicas), np.zeros(replicas, bool), np.zeros(replicas)
    latencies, now = [], 0.0
    for _ in range(1000):
        now += draw.exponential(own / rate / replicas / 0.7)
        wait = np.maximum(free_at - now, 0)
        candidates = pool(
            replicas, queued_tokens=list(wait * rate), cached_tokens=list(holds * shared), prefill_rate=rate
        )
        best = chooser.rank(candidates, LegRequest(shared + own, draw=draw.random())).indices[0]
        work = (own + shared * (not holds[best])) / rate
        free_at[best] = max(free_at[best], now) + work
        holds[best] = True
        count[best] += 1
        latencies.append(free_at[best] - now)
    assert count.max() < 1.5 * count.mean()
    assert np.percentile(latencies, 95) < 1.5 * (shared + own) / rate


CONTEXT = LegRequest(1000, session="ctx", returns=True)


def test_of_equals_the_one_that_need_not_compute_is_first() -> None:
    """To wait for a prompt that is being computed takes as long as to compute it elsewhere."""
    being_computed = pool(3, queued_tokens=[0, 1000, 0], cached_tokens=[0, 1000, 0])
    assert all(order("time_to_kv", being_computed, LegRequest(1000, draw=d))[0] == 1 for d in (0.0, 0.5, 0.9))


def test_what_is_asked_again_is_waited_for_until_that_takes_twice_as_long() -> None:
    for queued, best in ((1900, 0), (2100, 1)):
        candidates = pool(3, queued_tokens=[queued, 0, 0], cached_tokens=[1000, 0, 0])
        assert (order("time_to_kv", candidates, CONTEXT)[0] == 0) == (best == 0)
    part = pool(3, queued_tokens=[900, 0, 0], cached_tokens=[1000, 600, 0])
    assert order("time_to_kv", part, CONTEXT)[0] == 1, "the rest costs 400, twice, and the other's queue 900"


def test_a_context_that_nobody_holds_has_one_home_in_all_routers() -> None:
    idle = pool(10)
    contexts = [replace(CONTEXT, session=f"ctx-{number}") for number in range(200)]
    homes = [{order("time_to_kv", idle, replace(c, draw=d))[0] for d in (0.0, 0.5, 0.9)} for c in contexts]
    assert all(len(home) == 1 for home in homes)
    assert len(set.union(*homes)) == 10, "and contexts spread"
    busy = replace(idle, queued_tokens=np.array([0.0 if number == 3 else 500.0 for number in range(10)]))
    assert order("time_to_kv", busy, CONTEXT)[0] == 3, "among equals only"


# Decode.


def steps(count: int, **figures: float | list[float]) -> Candidates:
    return pool(
        count, step_base_ms=10, step_per_request_ms=0.5, step_per_token_ms=0.001, kv_tokens=10_000, **figures
    )


def test_decode_goes_where_fewer_requests_and_less_context_are() -> None:
    assert order("marginal_latency", steps(2, running=[8, 2], context_tokens=[800, 800])) == [1, 0]
    assert order("marginal_latency", steps(2, running=[4, 4], context_tokens=[9000, 800])) == [1, 0]


def test_a_slow_replica_gets_less_until_the_fast_ones_are_as_slow() -> None:
    slow = {"step_base_ms": [40, 10], "step_per_request_ms": 0.5}
    assert order("marginal_latency", pool(2, running=[0, 10], **slow))[0] == 1
    assert order("marginal_latency", pool(2, running=[0, 60], **slow))[0] == 0


def test_decode_waits_for_slots_and_headroom() -> None:
    full = steps(2, running=[8, 10], waiting=[2, 0], max_running=[8, 64])
    assert order("marginal_latency", full)[0] == 1
    tight = steps(2, running=[2, 10], free_kv_tokens=[1099, 5000])
    assert order("marginal_latency", tight)[0] == 1
    roomy = steps(2, running=[2, 10], free_kv_tokens=[1100, 5000])
    assert order("marginal_latency", roomy)[0] == 0


def test_one_more_request_costs_those_already_there() -> None:
    """Two replicas at the same TPOT: the one with fewer requests to slow down is better."""
    candidates = pool(2, running=[40, 4], step_base_ms=[10, 28], step_per_request_ms=[0.5, 0.5])
    assert order("marginal_latency", candidates)[0] == 1


def test_a_tpot_target_outweighs_a_shorter_wait() -> None:
    candidates = steps(2, running=[30, 16], waiting=[0, 16], max_running=[64, 16])
    assert order("marginal_latency", candidates, LegRequest(100, 50))[0] == 0
    assert order("marginal_latency", candidates, LegRequest(100, 50, tpot_target_ms=19.0))[0] == 1


def test_without_history_decode_ranks_by_load() -> None:
    assert order("marginal_latency", pool(3, running=[5, 0, 2])) == [1, 2, 0]


def test_a_replica_without_history_is_a_typical_one() -> None:
    candidates = pool(3, running=[4, 4, 1], step_base_ms=[10, 10, 0], step_per_request_ms=[1, 1, 0])
    assert order("marginal_latency", candidates)[0] == 2
    busy = pool(3, running=[4, 4, 9], step_base_ms=[10, 10, 0], step_per_request_ms=[1, 1, 0])
    assert order("marginal_latency", busy)[2] == 2


def test_a_replica_that_knows_a_base_alone_pays_for_another_request_what_the_pool_does() -> None:
    """A batch that never changed has no slopes: at their word, nothing would ever be full."""
    flat = {"step_base_ms": [6, 6, 6], "step_per_request_ms": [0, 0.5, 0.5]}
    assert order("marginal_latency", pool(3, running=[20, 4, 3], **flat)) == [2, 1, 0]
    assert order("marginal_latency", pool(3, running=[2, 4, 3], **flat)) == [0, 2, 1]


def test_where_no_slope_is_known_decode_ranks_by_load_however_much_is_known_of_bases() -> None:
    assert order("marginal_latency", pool(3, running=[5, 0, 2], step_base_ms=6)) == [1, 2, 0]
    assert order("marginal_latency", pool(3, running=[5, 1, 2], step_base_ms=[6, 0, 6])) == [1, 2, 0]


def test_least_load_counts_requests_and_breaks_ties_by_kv() -> None:
    assert order("least_load", pool(2, running=[3, 4], waiting=[2, 0])) == [1, 0]
    assert order("least_load", pool(2, running=2, kv_tokens=100, free_kv_tokens=[10, 90])) == [1, 0]


# The others.


def test_round_robin_takes_turns() -> None:
    turns = policy("round_robin")
    assert [turns.rank(pool(3), LegRequest(1)).indices[0] for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_least_requests_counts_its_own_alone() -> None:
    assert order("least_requests", pool(2, in_flight=[2, 1], running=[0, 9])) == [1, 0]


def test_power_of_two_takes_the_better_of_two_and_never_the_worst() -> None:
    candidates = pool(10, running=[100] + [1] * 9)
    first = Counter(order("power_of_two", candidates, LegRequest(1, draw=i / 997))[0] for i in range(997))
    assert first[0] == 0
    assert len(first) == 9


def test_a_session_sticks_and_moves_only_when_its_replica_leaves() -> None:
    sticky = policy("sticky_session")
    sessions = [LegRequest(1, session=f"s{i}", draw=i / 200) for i in range(200)]
    ten = pool(10)
    homes = [sticky.rank(ten, session).indices[0] for session in sessions]
    assert homes == [sticky.rank(ten, session).indices[0] for session in sessions]
    assert len(set(homes)) == 10
    nine = pool(9)
    for session, home in zip(sessions, homes, strict=True):
        if home != 9:
            assert sticky.rank(nine, session).indices[0] == home


def test_one_of_many_routers_looks_at_a_part_of_a_large_pool_another_one_each_time() -> None:
    board = pool_of(400)
    request = LegRequest(100, expected_tokens=50, share=1 / 8)
    chosen = {
        MarginalLatency().rank(board, replace(request, draw=number / 200)).indices[0] for number in range(200)
    }
    alone = {
        MarginalLatency().rank(board, replace(request, draw=number / 200, share=1.0)).indices[0]
        for number in range(200)
    }
    assert len(alone) == 1, "the one that is best of all"
    assert len(chosen) > 5, "the best of each part"
    assert max(board.running[index] for index in chosen) < 40, "each among the best tenth of all"


def test_a_small_pool_is_looked_at_whole() -> None:
    board = pool_of(12)
    best = MarginalLatency().rank(board, LegRequest(100, expected_tokens=50, share=1 / 16, draw=0.9))
    assert board.running[best.indices[0]] == board.running.min()


def pool_of(number: int) -> Candidates:
    """Replicas that differ by their load alone: 0, 1, 2, … requests, in a drawn order."""
    running = np.random.default_rng(3).permutation(number).astype(float)
    zeros, ones = np.zeros(number), np.ones(number)
    return Candidates(
        names=tuple(f"r{place}" for place in range(number)),
        queued_tokens=zeros, prefill_rate=zeros, cached_tokens=zeros, running=running, waiting=zeros,
        max_running=zeros, context_tokens=running * 100, free_kv_tokens=ones * np.inf, kv_tokens=zeros,
        step_base_ms=ones * 5, step_per_request_ms=ones * 0.1, step_per_token_ms=ones * 1e-4,
        in_flight=zeros, age_s=zeros, resting=zeros.astype(bool),
    )  # fmt: skip


def test_what_a_request_takes_from_the_others_beyond_the_target_counts() -> None:
    pair = replace(
        pool_of(2),
        running=np.array([60.0, 20.0]),
        context_tokens=np.zeros(2),
        step_base_ms=np.array([12.9, 20.0]),
        step_per_request_ms=np.array([0.2, 0.0]),
        step_per_token_ms=np.array([0.0, 0.002]),
    )
    request = LegRequest(950, expected_tokens=100)
    # From 24.9 to 25.1 ms for sixty, or from 20 to 22 for twenty: the first is cheaper, but over the target.
    assert MarginalLatency().rank(pair, request).indices[0] == 0
    assert MarginalLatency().rank(pair, replace(request, tpot_target_ms=25.0)).indices[0] == 1


def test_a_replica_without_a_slot_comes_after_a_slower_one_with_a_slot() -> None:
    pair = replace(
        pool_of(2),
        running=np.array([8.0, 8.0]),
        max_running=np.array([8.0, 16.0]),
        context_tokens=np.array([800.0, 60_000.0]),
    )
    assert MarginalLatency().rank(pair, LegRequest(100, expected_tokens=50)).indices[0] == 1
    free = replace(pair, max_running=np.array([16.0, 16.0]))
    assert MarginalLatency().rank(free, LegRequest(100, expected_tokens=50)).indices[0] == 0
