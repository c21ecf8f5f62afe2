"""How requests are offered, in a time that passes when somebody sleeps."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from cluster.bench_load import Limit, closed_loop, open_loop
from cluster.bench_requests import Planned, Session


@dataclass
class Server:
    """Takes as long for a request as `takes_s` says, and remembers when each was due and sent."""

    takes_s: Callable[[int], float] = lambda number: 1.0
    now_s: float = 100.0
    asked: list[Planned] = field(default_factory=list)
    sent_s: list[float] = field(default_factory=list)
    due_s: list[float | None] = field(default_factory=list)
    inside: int = 0
    most_inside: int = 0
    _sleeping: list[tuple[float, int, asyncio.Event]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    async def send(self, planned: Planned, due_s: float | None = None) -> None:
        number = len(self.asked)
        self.asked.append(planned)
        self.sent_s.append(self.now_s)
        self.due_s.append(due_s)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await self.sleep(self.takes_s(number))
        self.inside -= 1

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleeping.append((self.now_s + seconds, len(self.asked), woken))
        await woken.wait()

    async def passes(self, work: asyncio.Task[None]) -> None:
        """Time goes on to whoever is to wake next, when nobody has anything else to do."""
        while not work.done():
            for _ in range(10):
                await asyncio.sleep(0)
            if self._sleeping:
                self._sleeping.sort(key=lambda each: each[:2])
                self.now_s, _, woken = self._sleeping.pop(0)
                woken.set()
        await work


def lone() -> Iterator[Session]:
    return ((Planned("m", str(number)),) for number in itertools.count())


async def closed(server: Server, sessions: Iterator[Session], limit: Limit, streams: int) -> None:
    await server.passes(asyncio.create_task(closed_loop(server, sessions, limit, streams=streams)))


async def opened(server: Server, limit: Limit, rate_per_s: float, seed: int = 1) -> None:
    requests = (Planned("m", str(number)) for number in itertools.count())
    rng = random.Random(seed)
    loop = open_loop(server, requests, limit, rate_per_s=rate_per_s, rng=rng, sleep=server.sleep)
    await server.passes(asyncio.create_task(loop))


async def test_a_closed_loop_keeps_its_streams_busy_and_no_more() -> None:
    server = Server()
    await closed(server, lone(), Limit(requests=10), streams=3)
    assert (len(server.asked), server.most_inside) == (10, 3)
    assert server.now_s == pytest.approx(104), "ten of a second each, three at a time"
    assert len({planned.said for planned in server.asked}) == 10


async def test_a_stream_asks_a_session_one_request_after_the_other() -> None:
    sessions = (tuple(Planned(f"{s}", f"{n}") for n in range(3)) for s in itertools.count())
    server = Server()
    await closed(server, sessions, Limit(requests=6), streams=2)
    assert [(planned.model, planned.said) for planned in server.asked] == [
        ("0", "0"), ("1", "0"), ("0", "1"), ("1", "1"), ("0", "2"), ("1", "2")
    ]  # fmt: skip


async def test_no_request_begins_after_the_duration_and_all_are_finished() -> None:
    server = Server(takes_s=lambda number: 4.0)
    await closed(server, lone(), Limit(until_s=110.0), streams=2)
    assert max(server.sent_s) == 108.0 and len(server.asked) == 6
    assert server.now_s == 112.0 and server.inside == 0


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    server = Server(takes_s=lambda number: 1000.0)
    await opened(server, Limit(requests=20), rate_per_s=5.0)
    assert server.most_inside == 20
    assert server.due_s == sorted(server.due_s) == server.sent_s


async def test_an_open_loop_comes_at_its_rate_and_repeats_with_its_seed() -> None:
    first, second, other = Server(), Server(), Server()
    await opened(first, Limit(until_s=300.0), rate_per_s=10.0)
    await opened(second, Limit(until_s=300.0), rate_per_s=10.0)
    await opened(other, Limit(until_s=300.0), rate_per_s=10.0, seed=2)
    assert len(first.asked) == pytest.approx(2000, rel=0.1)
    assert first.due_s == second.due_s != other.due_s
    gaps = [later - sooner for sooner, later in itertools.pairwise(first.due_s)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert spread == pytest.approx(mean, rel=0.1), "Poisson: gaps vary as much as they last"


async def test_an_open_loop_lasts_as_long_as_it_should_also_if_nothing_comes() -> None:
    server = Server(takes_s=lambda number: 0.0)
    await opened(server, Limit(until_s=110.0), rate_per_s=0.001)
    assert server.asked == [] and server.now_s == 110.0


async def test_who_is_late_has_been_due_all_the_same() -> None:
    """When the loop was held up, requests are sent at once, and count from when they should have been."""
    server = Server()
    held_up = server.sleep

    async def sleep(seconds: float) -> None:
        await held_up(seconds + (5.0 if not server.asked else 0.0))

    requests = (Planned("m", str(number)) for number in itertools.count())
    rng = random.Random(1)
    loop = open_loop(server, requests, Limit(requests=10), rate_per_s=10.0, rng=rng, sleep=sleep)
    await server.passes(asyncio.create_task(loop))
    assert server.due_s[-1] < 103 < 105 < server.sent_s[0]
