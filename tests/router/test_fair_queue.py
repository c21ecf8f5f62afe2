"""The fair queue alone: who is next, in tokens, bands, and ages."""

from collections import Counter

import pytest

from router.admission.band import Waiting
from router.admission.fair_queue import FairQueue
from router.admission.slot import Slot


def anybody(model: str) -> bool:
    return True


def any_size(tokens: int) -> bool:
    return True


def request(
    model: str, tokens: int = 10, priority: int = 0, arrived: float = 0.0, deadline: float = 1e9
) -> Waiting:
    slot = Slot(model, "shared", tokens, 0, lambda slot, tokens: None, priority)
    return Waiting(slot, arrived, deadline, patience_s=10.0)


def queue_of(*requests: Waiting, **weights: float) -> FairQueue:
    queue = FairQueue(weights)
    for waiting in requests:
        queue.push(waiting)
    return queue


def take(queue: FairQueue, now: float = 0.0) -> str:
    """The model that is next; it is charged its prompt."""
    waiting = queue.take(now, anybody, any_size)
    assert waiting is not None
    queue.charge(waiting.model, waiting.slot.priority, prompt_tokens=waiting.slot.prompt_tokens)
    return waiting.model


def test_an_empty_queue_grants_nothing() -> None:
    assert queue_of(a=1).take(0.0, anybody, any_size) is None


def test_a_model_is_first_come_first_served() -> None:
    first, second = request("a"), request("a")
    queue = queue_of(first, second, a=1)
    assert [queue.take(0, anybody, any_size) for _ in range(2)] == [first, second]


def test_equal_models_alternate_whoever_came_first() -> None:
    queue = queue_of(*[request("a") for _ in range(3)], *[request("b") for _ in range(3)], a=1, b=1)
    assert [take(queue) for _ in range(6)] == list("ababab")


def test_output_counts_twice() -> None:
    queue = queue_of(a=2)
    queue.charge("a", 0, prompt_tokens=10, output_tokens=5)
    assert queue.counter("a") == (10 + 2 * 5) / 2


def test_tokens_count_and_not_requests() -> None:
    queue = queue_of(*[request("long", 1000) for _ in range(50)], long=1, short=1)
    for _ in range(500):
        queue.push(request("short", 100))
    granted = Counter(take(queue) for _ in range(220))
    assert granted["short"] / granted["long"] == pytest.approx(10, rel=0.05)


def test_weights_divide_the_tokens() -> None:
    queue = FairQueue({"a": 1.0, "b": 2.0, "c": 5.0})
    for model in "abc":
        for _ in range(1000):
            queue.push(request(model))
    granted = Counter(take(queue) for _ in range(800))
    assert [granted[model] / 800 for model in "abc"] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)


def test_idling_earns_no_credit() -> None:
    queue = FairQueue({"busy": 1.0, "back": 1.0})
    for _ in range(200):
        queue.push(request("busy"))
    for _ in range(100):
        take(queue)
    for _ in range(50):
        queue.push(request("back"))
    assert Counter(take(queue) for _ in range(40)) == {"busy": 20, "back": 20}


def test_a_model_that_was_served_more_stays_behind() -> None:
    queue = queue_of(request("a"), request("b"), a=1, b=1)
    queue.charge("a", 0, output_tokens=500)
    take(queue), take(queue)
    queue.push(request("a"))
    assert queue.counter("a") == 1010


def test_waiting_behind_its_own_limit_earns_no_credit() -> None:
    """A model at its concurrency limit would else drag newcomers down, and they would take everything."""
    queue = FairQueue({"limited": 1.0, "busy": 1.0, "new": 1.0})
    for model in ["limited", *["busy"] * 200]:
        queue.push(request(model))
    for _ in range(100):
        granted = queue.take(0, lambda model: model != "limited", any_size)
        assert granted is not None
        queue.charge(granted.model, 0, prompt_tokens=10)
    for _ in range(50):
        queue.push(request("new"))
    granted_to = Counter(take(queue) for _ in range(41))
    assert granted_to["limited"] == 1
    assert abs(granted_to["new"] - granted_to["busy"]) <= 1


def test_a_lower_priority_value_goes_first_whatever_was_served() -> None:
    queue = queue_of(request("a"), request("b", priority=-1), a=1, b=1)
    queue.charge("b", -1, output_tokens=1000)
    assert [take(queue), take(queue)] == ["b", "a"]


def test_priorities_beyond_the_last_band_are_that_band() -> None:
    queue = queue_of(request("a", priority=10**9), request("b", priority=8), a=1, b=1)
    assert [take(queue), take(queue)] == ["a", "b"]


def test_a_young_request_of_a_lower_band_waits() -> None:
    queue = queue_of(*[request("urgent") for _ in range(20)], request("low", priority=1), urgent=1, low=1)
    assert {take(queue, now=9.9) for _ in range(20)} == {"urgent"}


def test_an_old_request_of_a_lower_band_gets_every_fourth_grant() -> None:
    queue = FairQueue({"urgent": 1.0, "low": 1.0})
    for _ in range(100):
        queue.push(request("urgent"))
        queue.push(request("low", priority=5))
    assert [take(queue, now=10.0) for _ in range(8)] == [*["urgent"] * 3, "low", *["urgent"] * 3, "low"]


def test_a_band_whose_models_are_at_their_limits_does_not_stop_the_ageing_below() -> None:
    queue = FairQueue({"limited": 1.0, "urgent": 1.0, "low": 1.0})
    queue.push(request("limited", priority=-1))
    for _ in range(20):
        queue.push(request("urgent"))
        queue.push(request("low", priority=1))
    taken = [queue.take(10.0, lambda model: model != "limited", any_size) for _ in range(4)]
    assert [waiting.model for waiting in taken if waiting] == ["urgent", "urgent", "urgent", "low"]


def test_a_flood_that_grows_old_leaves_priorities_their_meaning() -> None:
    queue = FairQueue({"urgent": 1.0, "flood": 1.0})
    for _ in range(1000):
        queue.push(request("flood", priority=1))
    for _ in range(75):
        queue.push(request("urgent", arrived=1000.0))
    assert Counter(take(queue, now=1000.0) for _ in range(100)) == {"urgent": 75, "flood": 25}


def test_lower_bands_share_their_grants_fairly() -> None:
    queue = FairQueue({"urgent": 1.0, "noisy": 1.0, "quiet": 1.0})
    for _ in range(1000):
        queue.push(request("urgent"))
        queue.push(request("noisy", priority=1))
    for _ in range(20):
        queue.push(request("quiet", priority=1))
    granted = Counter(take(queue, now=10.0) for _ in range(160))
    assert granted == {"urgent": 120, "noisy": 20, "quiet": 20}


def test_a_request_that_does_not_fit_lets_others_pass_until_it_is_old() -> None:
    large, small, later = request("a", 1000), request("b", 10), request("b", 10)
    queue = queue_of(large, small, later, a=1, b=1)

    def room(free: int, now: float) -> Waiting | None:
        return queue.take(now, anybody, lambda tokens: tokens <= free)

    assert room(100, 9.9) is small
    assert room(100, 10.0) is None  # it reserves
    assert room(999, 11.0) is None
    assert room(1000, 12.0) is large
    assert room(100, 12.0) is later


def test_a_reservation_ends_with_its_request() -> None:
    large, small = request("a", 1000), request("b", 10)
    queue = queue_of(large, small, a=1, b=1)
    assert queue.take(10.0, anybody, lambda tokens: tokens <= 100) is None
    queue.remove(large)
    assert queue.take(10.0, anybody, lambda tokens: tokens <= 100) is small


def test_requests_expire_at_their_own_deadline() -> None:
    late, soon, gone = request("a", deadline=30), request("a", deadline=5), request("a", deadline=4)
    queue = queue_of(late, soon, gone, a=1)
    queue.remove(gone)
    assert queue.remove_expired(4.9) == []
    assert queue.remove_expired(5.0) == [soon]
    assert (len(queue), queue.queued("a"), late in queue, soon in queue) == (1, 1, True, False)


def test_removing_twice_is_once() -> None:
    waiting = request("a")
    queue = queue_of(waiting, request("a"), a=1)
    queue.remove(waiting)
    queue.remove(waiting)
    assert len(queue) == 1


def test_the_share_counts_those_who_wait() -> None:
    queue = queue_of(request("b"), a=1, b=3, idle=6)
    assert (queue.share("a"), queue.share("b")) == (1 / 4, 1)


def test_a_grant_looks_at_models_and_not_at_requests() -> None:
    """Counted, not timed: limits are asked a few times per model, whatever waits behind."""
    models = {f"m{i}": 1.0 for i in range(10)}
    queue = FairQueue(models)
    for i in range(50_000):
        queue.push(request(f"m{i % 10}"))
    asked = 0

    def counting(model: str) -> bool:
        nonlocal asked
        asked += 1
        return True

    for _ in range(1000):
        assert queue.take(0, counting, any_size) is not None
    assert asked <= 1000 * 2 * len(models)
