"""How long the event loop lets its callers wait: a timer that looks how late it comes."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from router.histogram import Histogram

INTERVAL_S = 0.02
WINDOW_S = 30.0


class Timer(Protocol):
    """What `call_at` gives; `asyncio.TimerHandle` is one."""

    def cancel(self) -> None:
        """It must not fire any more."""


class Loop(Protocol):
    """The part of `asyncio.AbstractEventLoop` that is used here."""

    def time(self) -> float:
        """Seconds, monotonic."""

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        """Call at that time of `time`, or later if the loop is busy."""


class LoopWatch:
    """The stall of one loop, in one sample every 20 ms.

    One long stall delays all that falls into it, so it gives a sample for every tick that it swallowed:
    each as late as that tick would have been. Without them the longest stalls would weigh the least.
    """

    def __init__(self, loop: Loop) -> None:
        self.stalls = Histogram()
        """Since the start."""
        self._loop = loop
        self._due_s = 0.0
        self._timer: Timer | None = None
        self._recent_ms: deque[float] = deque(maxlen=round(WINDOW_S / INTERVAL_S))

    def start(self) -> None:
        """Begin to watch; nothing if it runs already."""
        if self._timer is None:
            self._wait(self._loop.time() + INTERVAL_S)

    def stop(self) -> None:
        """No further samples; those that are there stay."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def p99_ms(self) -> float:
        """The stall that 99 of 100 samples of the last 30 s did not exceed; 0 before the first."""
        if not self._recent_ms:
            return 0.0
        samples = sorted(self._recent_ms)
        return samples[max(0, -(-99 * len(samples) // 100) - 1)]

    def _wait(self, due_s: float) -> None:
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._tick)

    def _tick(self) -> None:
        late_s = max(0.0, self._loop.time() - self._due_s)
        swallowed = int(late_s / INTERVAL_S)
        # After a night of sleep there are more of them than the window holds.
        for tick in range(min(swallowed + 1, self._recent_ms.maxlen or 1)):
            late_ms = (late_s - tick * INTERVAL_S) * 1000
            self._recent_ms.append(late_ms)
            self.stalls.add(late_ms)
        self._wait(self._due_s + (swallowed + 1) * INTERVAL_S)
