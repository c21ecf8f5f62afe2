"""An asyncio event loop whose clock jumps: sleeping costs nothing, and every run goes the same way.

Production code runs on it as it is, as long as it takes time from the loop (`loop.time()`, `asyncio.sleep`,
`asyncio.timeout`). Threads, sockets and processes would need real time, so nothing of them is heard here.

Timers are kept here and not in asyncio's own heap, which compares them in Python: with thousands of replicas
that is a fifth of a simulation.
"""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SAME_MOMENT_S = 1e-9
"""Timers no further apart are due together, as on asyncio's own loops (a monotonic clock's resolution)."""


class NothingLeftError(RuntimeError):
    """Every task waits for another one: no timer is left that could end it."""


class _Timers(selectors.SelectSelector):
    """Where a loop would wait for its next timer, the clock goes there at once.

    What is due is handed to the loop as the reader of a socket that has something to read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._heap: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._set = 0

    def add(self, when: float, timer: asyncio.TimerHandle) -> None:
        # The number makes an order of timers of one moment, and keeps the heap from comparing handles.
        self._set += 1
        heapq.heappush(self._heap, (when, self._set, timer))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        heap = self._heap
        while heap and heap[0][2].cancelled():
            heapq.heappop(heap)
        if timeout is None:  # nothing else is left to do at this moment
            if not heap:
                raise NothingLeftError("all tasks wait, and no timer is left")
            self.now_s = max(self.now_s, heap[0][0])
        due = []
        until_s = self.now_s + SAME_MOMENT_S
        while heap and heap[0][0] < until_s:
            timer = heapq.heappop(heap)[2]
            if not timer.cancelled():
                key = selectors.SelectorKey(-1, -1, selectors.EVENT_READ, (timer, None))
                due.append((key, selectors.EVENT_READ))
        return due


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s. Timers that are due at the same moment run in the order in which they were set."""

    def __init__(self) -> None:
        self._timers = _Timers()
        super().__init__(self._timers)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._timers.now_s

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's. A timer in the past is due now."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers.add(when, timer)
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's."""
        return self.call_at(self._timers.now_s + delay, callback, *args, context=context)


def run(main: Coroutine[object, object, T]) -> T:
    """`asyncio.run` in virtual time. Raises NothingLeftError where a real loop would hang."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
