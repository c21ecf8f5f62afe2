"""An asyncio event loop whose clock jumps: sleeping costs nothing, and every run goes the same way.

Production code runs on it as it is, as long as it takes time from the loop (`loop.time()`, `asyncio.sleep`,
`asyncio.timeout`). Threads, sockets and processes would need real time, so nothing of them is heard here.

Timers are kept here and not in asyncio's own heap, which compares them in Python, and run where a loop would
wait, one after the other until one of them wakes a task: a simulation is mostly timers that wake nobody, and
a turn of asyncio's loop costs as much as what such a timer does.
"""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class NothingLeftError(RuntimeError):
    """Every task waits for another one: no timer is left that could end it."""


class _Timers(selectors.SelectSelector):
    """Where a loop would wait for its next timer, the clock goes there at once, and the timer runs."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.woken = False
        """Whether the loop has something to run."""
        self._heap: list[tuple[float, int, asyncio.TimerHandle, Callable[[], object]]] = []
        self._set = 0

    def add(self, when: float, timer: asyncio.TimerHandle, call: Callable[[], object]) -> None:
        # The number makes an order of timers of one moment, and keeps the heap from comparing handles.
        self._set += 1
        heapq.heappush(self._heap, (when, self._set, timer, call))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None:  # something is ready at this moment, and goes first
            return []
        heap, pop = self._heap, heapq.heappop
        self.woken = False
        while not self.woken:
            if not heap:
                raise NothingLeftError("all tasks wait, and no timer is left")
            when, _, timer, call = pop(heap)
            if timer.cancelled():
                continue
            if when > self.now_s:
                self.now_s = when
            call()
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s. Timers that are due at the same moment run in the order in which they were set.

    An error in a timer ends the run, because a simulated engine that is dead would only look slow.
    """

    def __init__(self) -> None:
        self._timers = _Timers()
        super().__init__(self._timers)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._timers.now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's."""
        self._timers.woken = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's, in the context of whoever runs it unless one is given. A time in the past is now."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if context is not None:
            self._timers.add(when, timer, partial(context.run, callback, *args))
        else:
            self._timers.add(when, timer, partial(callback, *args) if args else callback)
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
