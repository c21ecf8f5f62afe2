"""Our policies behind Serve's seam, without Serve around it."""

import asyncio
from dataclasses import dataclass, field

import pytest
from ray.serve.request_router import PendingRequest

from deployments import board
from deployments.request_router import PolicyRequestRouter, name_of
from heliostat.wire import PrefillRequest, Version
from router.policy import RANKS
from router.telemetry import TelemetryBoard


@dataclass(frozen=True)
class FakeDeploymentId:
    name: str


@dataclass(frozen=True)
class FakeReplicaId:
    unique_id: str
    deployment_id: FakeDeploymentId


@dataclass(frozen=True)
class FakeReplica:
    replica_id: FakeReplicaId


@dataclass
class FakeMetadata:
    internal_request_id: str


@dataclass
class FakeContext:
    should_backoff: bool = False


@dataclass
class FakePending:
    metadata: FakeMetadata
    args: list[object] = field(default_factory=list)
    routing_context: FakeContext = field(default_factory=FakeContext)
    future: asyncio.Future[object] = field(default_factory=asyncio.Future)


def replicas(count: int) -> list[FakeReplica]:
    deployment = FakeDeploymentId("prefill-math")
    return [FakeReplica(FakeReplicaId(str(i), deployment)) for i in range(count)]


def pending(call_id: str) -> FakePending:
    return FakePending(FakeMetadata(call_id), [PrefillRequest(f"leg-{call_id}", "math", (1, 2, 3))])


@pytest.fixture
def own_board(monkeypatch: pytest.MonkeyPatch) -> TelemetryBoard:
    monkeypatch.setattr(board, "BOARD", TelemetryBoard())
    return board.BOARD


def request_router() -> PolicyRequestRouter:
    """As Serve leaves it after its own part of the constructor."""
    router: PolicyRequestRouter = PolicyRequestRouter.__new__(PolicyRequestRouter)
    router.initialize_state()
    return router


async def test_calls_go_round_and_count_from_choice_to_completion(own_board: TelemetryBoard) -> None:
    router, pool = request_router(), replicas(4)
    names = tuple(name_of(replica.replica_id) for replica in pool)
    for call in range(4):
        request = pending(str(call))
        [best], *_ = await router.choose_replicas(pool, request)
        router.on_request_routed(request, best.replica_id, None)
        assert own_board.replica_of(f"leg-{call}") == name_of(best.replica_id)
    assert own_board.candidates(names).in_flight.tolist() == [1, 1, 1, 1]
    for call in range(4):
        router.on_request_completed(pool[0].replica_id, str(call))
    assert own_board.candidates(names).in_flight.tolist() == [0, 0, 0, 0]


async def test_a_leg_that_no_replica_fits_makes_serve_wait_before_it_asks_again(
    own_board: TelemetryBoard,
) -> None:
    """Serve asks again and again without an await, and the event loop stands still, unless it is told to."""
    leg = PrefillRequest("leg-0", "math", (1, 2, 3), versions=frozenset({"gone"}))
    request = FakePending(FakeMetadata("0"), [leg])
    assert await request_router().choose_replicas(replicas(1), request) == []
    assert request.routing_context.should_backoff


async def test_ranks_are_few_and_follow_the_list_that_serve_passes(own_board: TelemetryBoard) -> None:
    router, many = request_router(), replicas(20)
    assert len(await router.choose_replicas(many, pending("1"))) == RANKS
    few = replicas(2)
    ranks = await router.choose_replicas(few, pending("2"))
    assert sorted(rank[0].replica_id.unique_id for rank in ranks) == ["0", "1"]
    assert await router.choose_replicas([], pending("3")) == []


async def test_a_call_of_another_method_is_ranked_and_not_booked(own_board: TelemetryBoard) -> None:
    router, pool = request_router(), replicas(2)
    assert len(await router.choose_replicas(pool, FakePending(FakeMetadata("1"), ["ticket"]))) == 2
    assert len(await router.choose_replicas(pool, None)) == 2
    names = tuple(name_of(replica.replica_id) for replica in pool)
    assert own_board.candidates(names).in_flight.sum() == 0


async def test_a_call_that_has_been_placed_is_not_booked_again(own_board: TelemetryBoard) -> None:
    """Serve asks once more when another call's turn has placed this one, even when it is over."""
    router, pool, request = request_router(), replicas(2), pending("1")
    [best], *_ = await router.choose_replicas(pool, request)
    request.future.set_result(best)
    router.on_request_routed(request, best.replica_id, None)
    router.on_request_completed(best.replica_id, "1")
    assert len(await router.choose_replicas(pool, request)) == 2
    names = tuple(name_of(replica.replica_id) for replica in pool)
    assert own_board.candidates(names).in_flight.sum() == 0


async def test_a_leg_that_no_replica_may_have_does_not_hold_up_the_process(own_board: TelemetryBoard) -> None:
    """Serve asks again at once, in a loop that never waits, as long as nobody says otherwise."""
    router, pool, request = request_router(), replicas(2), pending("1")
    assert PendingRequest([], {}, FakeMetadata("1")).routing_context.should_backoff is False, (
        "Serve's default"
    )
    for replica in pool:
        own_board.roster.observe(name_of(replica.replica_id), Version("new"))
    request.args = [PrefillRequest("leg", "math", (1, 2), versions=frozenset({"old"}))]
    assert await router.choose_replicas(pool, request) == []
    assert request.routing_context.should_backoff
    fine = pending("2")
    assert len(await router.choose_replicas(pool, fine)) == 2
