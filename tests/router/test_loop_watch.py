"""The loop watch on a loop whose time stands still until a test moves it."""

from collections.abc import Callable

import pytest

from router.loop_watch import LoopWatch


class FakeTimer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """One timer at a time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None], FakeTimer]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer()
        self.timers.append((when, callback, timer))
        return timer

    def fire(self, late_s: float = 0.0) -> None:
        """Run what is due next, so much too late."""
        when, callback, timer = self.timers.pop(0)
        self.now = when + late_s
        if not timer.cancelled:
            callback()


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def watch(loop: FakeLoop) -> LoopWatch:
    watch = LoopWatch(loop)
    watch.start()
    return watch


def test_nothing_is_known_before_the_first_tick(watch: LoopWatch) -> None:
    assert watch.p99_ms() == 0


def test_a_tick_says_how_late_it_came_and_the_next_keeps_the_beat(loop: FakeLoop, watch: LoopWatch) -> None:
    loop.fire(late_s=0.005)
    assert watch.p99_ms() == pytest.approx(5)
    assert loop.timers[0][0] == pytest.approx(100.04)


def test_one_in_a_hundred_may_be_late(loop: FakeLoop, watch: LoopWatch) -> None:
    for _ in range(99):
        loop.fire(late_s=0.001)
    loop.fire(late_s=0.015)
    assert watch.p99_ms() == pytest.approx(1)
    loop.fire(late_s=0.015)
    assert watch.p99_ms() == pytest.approx(15)


def test_a_long_stall_counts_for_every_tick_that_it_swallowed(loop: FakeLoop, watch: LoopWatch) -> None:
    loop.fire(late_s=0.19)
    assert len(watch.stalls) == 10  # 190, 170, … 10 ms
    assert watch.p99_ms() == pytest.approx(190)
    assert loop.timers[0][0] == pytest.approx(100.22)


def test_the_window_forgets_and_the_histogram_does_not(loop: FakeLoop, watch: LoopWatch) -> None:
    loop.fire(late_s=0.019)
    for _ in range(1500):
        loop.fire()
    assert watch.p99_ms() == pytest.approx(0, abs=1e-6)
    assert len(watch.stalls) == 1501


def test_a_night_of_sleep_fills_the_window_once(loop: FakeLoop, watch: LoopWatch) -> None:
    loop.fire(late_s=36_000)
    assert len(watch.stalls) == 1500
    assert loop.timers[0][0] > loop.now


def test_start_twice_is_once_and_stop_ends_it(loop: FakeLoop, watch: LoopWatch) -> None:
    watch.start()
    assert len(loop.timers) == 1
    watch.stop()
    watch.stop()
    loop.fire(late_s=1)
    assert not loop.timers
    assert len(watch.stalls) == 0
    watch.start()
    loop.fire()
    assert len(watch.stalls) == 1
