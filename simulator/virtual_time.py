"""An asyncio event loop whose clock jumps: sleeping costs nothing, and every run goes the same way.

Production code runs on it as it is, as long as it takes time from the loop (`loop.time()`, `asyncio.sleep`,
`asyncio.timeout`). Threads, sockets and processes would need real time, so nothing of them is heard here.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class NothingLeftError(RuntimeError):
    """Every task waits for another one: no timer is left that could end it."""


class _JumpingSelector(selectors.SelectSelector):
    """Where a loop would wait for its next timer, the clock goes there at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingLeftError("all tasks wait, and no timer is left")
        if timeout > 0.0:
            self.now_s += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s. Timers that are due at the same moment run in the order in which they were set."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now_s


def run(main: Coroutine[object, object, T]) -> T:
    """`asyncio.run` in virtual time. Raises NothingLeftError where a real loop would hang."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
