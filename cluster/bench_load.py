"""How requests are offered: a closed loop, whose streams wait for answers, or an open one, which does not."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cluster.bench_requests import Planned, Session

Sleep = Callable[[float], Awaitable[None]]


class Sends(Protocol):
    """What requests are given to."""

    def clock(self) -> float:
        """Seconds, monotonic."""

    async def send(self, planned: Planned, due_s: float | None = None) -> None:
        """Until the request is over, whatever became of it. It was due then, by default now."""


@dataclass(slots=True)
class Limit:
    """How many requests begin, and until when; `until_s` is a time of the sender's clock."""

    requests: int | None = None
    until_s: float | None = None
    begun: int = field(default=0, init=False)

    def admits(self, at_s: float) -> bool:
        """Whether one more may begin at that time; it is counted then."""
        if self.until_s is not None and at_s >= self.until_s:
            return False
        if self.requests is not None and self.begun >= self.requests:
            return False
        self.begun += 1
        return True


async def closed_loop(sender: Sends, sessions: Iterator[Session], limit: Limit, *, streams: int) -> None:
    """So many requests at a time. Each stream goes through one session after the other, as an agent does."""

    async def stream() -> None:
        for session in sessions:
            for planned in session:
                if not limit.admits(sender.clock()):
                    return
                await sender.send(planned)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(streams, limit.requests or streams)):
            group.create_task(stream())


async def open_loop(
    sender: Sends,
    requests: Iterator[Planned],
    limit: Limit,
    *,
    rate_per_s: float,
    rng: random.Random,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Poisson arrivals, whatever becomes of the requests before; each counts from when it was due."""
    due_s = sender.clock()
    async with asyncio.TaskGroup() as group:
        for planned in requests:
            due_s += rng.expovariate(rate_per_s)
            if not limit.admits(due_s):
                break
            await sleep(max(0.0, due_s - sender.clock()))
            group.create_task(sender.send(planned, due_s))
        if limit.until_s is not None:
            await sleep(
                max(0.0, limit.until_s - sender.clock())
            )  # that nothing comes there belongs to the run
