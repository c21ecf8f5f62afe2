"""What a router says of its models before any replica has answered; models come and go meanwhile."""

import asyncio

from deployments.cluster_view import ServeClusterView
from deployments.identity import Identity
from heliostat.spec import Family, Model, Pool, Spec
from heliostat.wire import Load, Role, Version
from router.catalog import ServedModel
from router.telemetry import TelemetryBoard

POOL = Pool(weights="w")
SPEC = Spec(
    family=Family(base="b"),
    prefill={"home": POOL},
    decode={"base": POOL},
    models={"first": Model(prefill="home", decode="base")},
)


def test_a_model_is_unavailable_with_its_pools_and_unknown_without_a_model() -> None:
    served: dict[str, ServedModel] = {}
    view = ServeClusterView(SPEC, served, {}, TelemetryBoard(), "inbox")
    assert view.unavailable("late") is None, "that it does not exist is for admission to say"
    served["late"] = ServedModel(Model(prefill="home", decode="base"))
    assert view.unavailable("late") == "pool prefill.home has not answered yet"
    del served["late"]
    assert view.unavailable("late") is None


async def test_a_router_that_starts_does_not_wait_longer_for_a_pool_than_it_was_told() -> None:
    view = ServeClusterView(SPEC, {}, {}, TelemetryBoard(), "inbox")
    async with asyncio.timeout(5):
        await view.heard(within_s=0.01)
    assert view.problem() == "pool prefill.home has not answered yet"


class FakeAnswers:
    def __init__(self, answers: list[object]) -> None:
        self._answers = answers

    async def results_async(self, timeout_s: float, return_exceptions: bool) -> list[object]:
        return self._answers


class FakePool:
    """A handle to two replicas that know themselves, and what they have been told."""

    def __init__(self, role: str, source: str) -> None:
        self.identities = [Identity(f"{role}#{n}", Version(source, source, source)) for n in range(2)]
        self.asked: list[str] = []

    def broadcast(self, method: str, *args: str) -> FakeAnswers:
        self.asked.append(method)
        if method == "load":
            return FakeAnswers([Load(each.replica, 0, 0, 0, 0.0, 1) for each in self.identities])
        return FakeAnswers([each.told(*args) for each in self.identities])


async def test_replicas_say_who_they_are_before_they_count_and_hear_what_they_belong_with() -> None:
    spec = SPEC.model_copy(update={"decode": {"base": Pool(weights="d")}})
    pools = {
        (Role.PREFILL, "home"): FakePool("p", "w"),
        (Role.DECODE, "base"): FakePool("d", "d-of-another-spec"),
    }
    board = TelemetryBoard()
    view = ServeClusterView(spec, {}, pools, board, "inbox")
    view.start()
    for _ in range(100):  # nothing here waits for anything else
        await asyncio.sleep(0)
    view.stop()
    assert all(view.answers(key) for key in pools)
    for pool in pools.values():
        assert pool.asked == ["load", "identify"]
    assert board.roster.version("p#1") == Version("w", "w", "w", partners=("d",))
    assert board.roster.version("d#0") == Version(*["d-of-another-spec"] * 3), "of which ours knows nothing"
    assert view.runs((Role.PREFILL, "home"), frozenset({"w"}))
    assert not view.runs((Role.PREFILL, "home"), frozenset({"x"}))
    assert not view.runs((Role.PREFILL, "gone"), frozenset({"w"}))


def test_failed_legs_are_counted_for_their_pool() -> None:
    view = ServeClusterView(SPEC, {}, {}, TelemetryBoard(), "inbox")
    for _ in range(2):
        view.pool(Role.DECODE, "base").leg_failed()
    assert view.failed_legs(Role.DECODE, "base") == 2
    assert view.failed_legs(Role.PREFILL, "home") == 0
