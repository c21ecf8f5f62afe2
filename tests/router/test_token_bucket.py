"""A token bucket keeps its rate over time, whatever a single request costs."""

import pytest

from router.admission.token_bucket import TokenBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_full_bucket_holds_a_second_of_its_rate() -> None:
    bucket = TokenBucket(10.0, Clock())
    for _ in range(10):
        assert bucket.wait_s(1) == 0
        bucket.take(1)
    assert bucket.wait_s(1) == pytest.approx(0.1)


def test_a_slow_bucket_holds_one() -> None:
    clock = Clock()
    bucket = TokenBucket(0.5, clock)
    assert bucket.wait_s(1) == 0
    bucket.take(1)
    assert bucket.wait_s(1) == 2.0
    clock.now = 1.5
    assert bucket.wait_s(1) == 0.5
    clock.now = 2.0
    assert bucket.wait_s(1) == 0


def test_a_debt_is_paid_at_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(100.0, clock)
    bucket.take(1100)
    assert bucket.wait_s() == 10.0
    clock.now = 9.0
    assert bucket.wait_s() == pytest.approx(1.0)
    clock.now = 10.0
    assert bucket.wait_s() == 0


def test_an_idle_bucket_does_not_grow_beyond_its_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(10.0, clock)
    clock.now = 1000.0
    bucket.take(10)
    assert bucket.wait_s(1) == pytest.approx(0.1)


def test_an_amount_above_the_burst_passes_when_the_bucket_is_full() -> None:
    clock = Clock()
    bucket = TokenBucket(10.0, clock)
    assert bucket.wait_s(64) == 0
    bucket.take(64)
    assert bucket.wait_s(1) == pytest.approx(5.5)
    assert bucket.wait_s(64) == pytest.approx(6.4)


def test_the_average_keeps_to_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(50.0, clock)
    taken = 0
    for step in range(10_000):
        clock.now = step / 100
        if bucket.wait_s() == 0:
            bucket.take(333)
            taken += 333
    assert taken / 100 == pytest.approx(50, rel=0.1)
