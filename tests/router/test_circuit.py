"""The circuit breaker: who fails again and again rests, and is tried with one request."""

from router.circuit import FIRST_PAUSE_S, MAX_FAILURES, MAX_PAUSE_S, CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def opened() -> tuple[CircuitBreaker, Clock]:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    for _ in range(MAX_FAILURES):
        assert not breaker.resting("a")
        breaker.failed("a")
    return breaker, clock


def test_failures_in_a_row_open_the_circuit_of_that_replica_alone() -> None:
    breaker, _ = opened()
    assert breaker.resting("a")
    assert not breaker.resting("b")


def test_a_success_between_them_starts_the_count_again() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(MAX_FAILURES):
        breaker.failed("a")
        breaker.succeeded("a")
    assert not breaker.resting("a")


def test_a_lost_replica_rests_at_once() -> None:
    breaker = CircuitBreaker(Clock())
    breaker.failed("a", lost=True)
    assert breaker.resting("a")


def test_after_the_rest_one_request_is_let_through() -> None:
    breaker, clock = opened()
    clock.now += FIRST_PAUSE_S
    assert not breaker.resting("a")
    breaker.tried("a")
    assert breaker.resting("a")
    breaker.succeeded("a")
    assert not breaker.resting("a")


def test_a_trial_that_comes_to_no_end_blocks_for_one_pause() -> None:
    breaker, clock = opened()
    clock.now += FIRST_PAUSE_S
    breaker.tried("a")
    clock.now += FIRST_PAUSE_S
    assert not breaker.resting("a")


def test_each_failed_trial_doubles_the_rest_up_to_a_limit() -> None:
    breaker, clock = opened()
    pauses = []
    for _ in range(7):
        pauses.append(breaker.open_until("a") - clock.now)
        clock.now = breaker.open_until("a")
        breaker.tried("a")
        breaker.failed("a")
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_PAUSE_S, MAX_PAUSE_S]


def test_of_many_calls_lost_together_one_opens_the_circuit() -> None:
    breaker, clock = opened()
    for _ in range(16):
        breaker.failed("a", lost=True)
    assert breaker.open_until("a") == clock.now + FIRST_PAUSE_S


def test_trying_a_healthy_replica_means_nothing() -> None:
    breaker = CircuitBreaker(Clock())
    breaker.failed("a")
    breaker.tried("a")
    assert not breaker.resting("a")


def test_replicas_that_are_gone_are_forgotten() -> None:
    breaker, _ = opened()
    breaker.keep({"b"})
    assert breaker.open_until("a") == 0.0
