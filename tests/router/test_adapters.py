"""Adapters in a decision: what the board knows of them, what they cost in policies, where choices go."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from heliostat.wire import Adapter, DecodeRequest, Load, PrefillRequest, Role, StepTime
from router.choice import Chooser
from router.policy import DEFAULTS, POLICIES, Candidates, LegRequest
from router.policy.decode import MarginalLatency
from router.policy.prefill import TimeToKv
from router.prefix_index import adapter_name
from router.telemetry import ADAPTER_MS, TelemetryBoard

POOL = tuple(f"r{i}" for i in range(8))
A, B = Adapter("a", "/a"), Adapter("b", "/b")
PROMPT = tuple(range(512))


def report(replica: str, domain: str = "d") -> Load:
    step = StepTime(10.0, 0.5, 0.001)
    return Load(replica, 0, 0, 0, 0.0, 1, 64, 0, 100_000, 10.0, step, 8000.0, (), domain)


def board_of(domain: str = "d") -> TelemetryBoard:
    board = TelemetryBoard()
    for name in POOL:
        board.observe(report(name, domain))
    return board


def chooser(board: TelemetryBoard, role: Role) -> Chooser:
    return Chooser(board, POLICIES[DEFAULTS[role]].make(), random.Random(0).random)


def loading(board: TelemetryBoard, adapter: Adapter | None) -> list[float]:
    """What the adapter costs on each replica, ms."""
    candidates = board.candidates(POOL, adapter=adapter)
    return np.broadcast_to(candidates.adapter_ms, len(POOL)).tolist()


# The board.


def test_an_adapter_costs_its_loading_where_no_replica_has_said_that_it_is_there() -> None:
    board = board_of()
    board.kv_changed("r2", [adapter_name(A.digest)], ())
    assert loading(board, A) == [ADAPTER_MS, ADAPTER_MS, 0, *[ADAPTER_MS] * 5]
    assert loading(board, B) == [ADAPTER_MS] * 8
    assert loading(board, None) == [0] * 8
    board.kv_changed("r2", (), [adapter_name(A.digest)])
    assert loading(board, A) == [ADAPTER_MS] * 8


def test_a_lost_replica_comes_back_without_its_adapters() -> None:
    board = board_of()
    board.kv_changed("r0", [adapter_name(A.digest)], ())
    board.failed("r0", lost=True)
    assert loading(board, A) == [ADAPTER_MS] * 8


def test_a_prompt_has_other_blocks_for_each_adapter_that_writes() -> None:
    board = board_of()
    plain, a, b = (board.hashes(POOL, PROMPT, adapter) for adapter in (None, A, B))
    assert len(plain) == len(a) and not set(plain) & set(a) and not set(a) & set(b)
    assert board.hashes(POOL, PROMPT, Adapter("a", "/elsewhere")) == a
    assert TelemetryBoard().hashes(POOL, PROMPT, A) == (), "of an unknown domain"


# Policies.


def pair(**figures: list[float]) -> Candidates:
    """Two replicas, alike but for these figures."""
    both = board_of().candidates(POOL[:2])
    return replace(both, **{name: np.array(values) for name, values in figures.items()})


@pytest.mark.parametrize(("queued", "best"), [(300.0, 0), (500.0, 1)])
def test_a_loaded_adapter_is_worth_its_loading_and_no_more(queued: float, best: int) -> None:
    """At 8 tokens/ms, 400 tokens take as long as an adapter."""
    candidates = pair(queued_tokens=[queued, 0], adapter_ms=[0, ADAPTER_MS])
    assert TimeToKv().rank(candidates, LegRequest(100)).indices[0] == best


def test_a_decode_replica_pays_for_the_adapter_once() -> None:
    ranking = MarginalLatency().rank(pair(adapter_ms=[ADAPTER_MS, 0]), LegRequest(100, 20))
    assert ranking.indices == (1, 0)
    assert ranking.costs[1] - ranking.costs[0] == pytest.approx(ADAPTER_MS)


@pytest.mark.parametrize("reuses", [False, True])
def test_what_a_decode_replica_has_cached_counts_where_it_computes_the_rest(reuses: bool) -> None:
    candidates = pair(cached_tokens=[0, 64])
    ranking = MarginalLatency().rank(candidates, LegRequest(100, 20, reuses=reuses))
    costs = dict(zip(ranking.indices, ranking.costs, strict=True))
    assert costs[0] - costs[1] == pytest.approx(64 * 0.5 if reuses else 0.0)


def test_more_cached_than_asked_for_is_no_gain() -> None:
    candidates = pair(cached_tokens=[100, 164])
    costs = MarginalLatency().rank(candidates, LegRequest(100, 20, reuses=True)).costs
    assert costs[0] == pytest.approx(costs[1])


# Choices.


def test_prefills_return_to_a_replica_that_has_their_adapter_until_its_queue_is_dearer() -> None:
    board = board_of()
    chooses = chooser(board, Role.PREFILL)

    def best(call: int) -> int:
        tokens = tuple(range(call * 1000, call * 1000 + 160))
        return chooses.choose(POOL, str(call), PrefillRequest(str(call), "m", tokens, adapter=A))[0]

    home = best(0)
    board.ended("0")
    assert loading(board, A)[home] == 0, "as good as loaded from the choice on"
    burst = Counter(best(call) for call in range(1, 9))
    # 20 ms each: the third that waits costs more than an adapter elsewhere.
    assert burst[home] >= 3 and len(burst) >= 2


def test_a_prompt_that_another_adapter_wrote_is_not_cached() -> None:
    board = board_of()
    chooses = chooser(board, Role.PREFILL)
    home = chooses.choose(POOL, "1", PrefillRequest("1", "m", PROMPT, adapter=A))[0]
    cached = {
        adapter: board.candidates(POOL, board.hashes(POOL, PROMPT, adapter), 512).cached_tokens[home]
        for adapter in (A, B, None)
    }
    assert cached == {A: 512, B: 0, None: 0}


def test_in_an_icarus_pool_a_prompt_finds_its_kv_whichever_adapter_reads_it() -> None:
    board = board_of()
    chooses = chooser(board, Role.DECODE)
    homes = set()
    for call, adapter in enumerate((A, B, None, A, B)):
        leg = DecodeRequest(str(call), "m", PROMPT, None, b"", adapter=adapter)
        homes.add(chooses.choose(POOL, str(call), leg)[0])
        board.ended(str(call))
    assert len(homes) == 1
    (home,) = homes
    assert board.candidates(POOL, board.hashes(POOL, PROMPT), 512).cached_tokens[home] == 512


def test_in_a_plain_decode_pool_only_adapters_draw_requests() -> None:
    board = board_of(domain="")
    chooses = chooser(board, Role.DECODE)

    def best(call: str, adapter: Adapter | None) -> int:
        index = chooses.choose(POOL, call, DecodeRequest(call, "m", PROMPT, None, b"", adapter=adapter))[0]
        board.ended(call)
        return index

    home = best("0", A)
    assert {best(f"a{call}", A) for call in range(20)} == {home}
    assert len({best(f"n{call}", None) for call in range(20)}) > 1
