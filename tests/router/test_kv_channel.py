"""KV events from replica to router over a real connection: the last word on every block, for every router."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from heliostat.wire import Load, TokenDelta, TokenFrame
from router.channel import outbox as outbox_module
from router.channel.inbox import Inbox
from router.channel.messages import MAX_HASHES, KvEvents
from router.channel.outbox import Outbox

LOAD = Load("prefill#1", 0, 0, 0, 0.0, 0)
LAST_FRAME = TokenFrame((TokenDelta(0, (1,), None, "length", None),), True, LOAD, None)


@dataclass
class Ends:
    """A router's inbox and what it heard, and a replica's outbox."""

    inbox: Inbox
    outbox: Outbox
    events: list[KvEvents]

    def kept(self) -> set[int]:
        """What the router believes after all events."""
        kept: set[int] = set()
        for event in self.events:
            kept = kept.difference(event.removed).union(event.added)
        return kept


@asynccontextmanager
async def ends() -> AsyncGenerator[Ends, None]:
    events: list[KvEvents] = []

    def on_kv(replica: str, added: Sequence[int], removed: Sequence[int]) -> None:
        assert replica == LOAD.replica
        events.append(KvEvents(tuple(added), tuple(removed)))

    inbox = Inbox("127.0.0.1", lambda _: None, lambda _: None, on_kv, first_token_s=60.0, idle_s=60.0)
    await inbox.start()
    outbox = Outbox(LOAD.replica, lambda: LOAD)
    try:
        yield Ends(inbox, outbox, events)
    finally:
        outbox.close()
        inbox.close()


async def until(condition: Callable[[], object]) -> None:
    """Turn the event loop until it holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)


async def test_kv_events_arrive_with_the_last_word_on_every_block() -> None:
    async with ends() as pair:
        await pair.outbox.link(pair.inbox.address)
        pair.outbox.kv_changed((1, -2, 3), ())
        pair.outbox.kv_changed((4,), (3, -2))
        pair.outbox.kv_changed((3,), ())
        await until(lambda: pair.events)
        assert pair.events == [KvEvents((1, 4, 3), (-2,))]
        pair.outbox.kv_changed((), (1,))
        await until(lambda: len(pair.events) == 2)
        assert pair.kept() == {3, 4}


async def test_a_router_that_comes_later_learns_what_is_kept() -> None:
    async with ends() as pair:
        pair.outbox.kv_changed(range(10), ())
        pair.outbox.kv_changed((), range(5))
        connecting = asyncio.create_task(pair.outbox.link(pair.inbox.address))
        pair.outbox.kv_changed((20,), ())
        await connecting
        pair.outbox.kv_changed((21,), (20,))
        await until(lambda: 21 in pair.kept())
        assert pair.kept() == {5, 6, 7, 8, 9, 21}


async def test_many_blocks_go_in_bounded_messages_while_the_connection_takes_them() -> None:
    async with ends() as pair:
        link = await pair.outbox.link(pair.inbox.address)
        link.pause_writing()
        pair.outbox.kv_changed(range(3 * MAX_HASHES + 1), ())
        stream = pair.inbox.open()
        link.send(stream.number, LAST_FRAME)
        await asyncio.sleep(0)
        link.beat()
        assert pair.events == []
        link.resume_writing()
        await until(lambda: len(pair.events) == 4)
        assert max(len(event.added) for event in pair.events) == MAX_HASHES
        assert pair.kept() == set(range(3 * MAX_HASHES + 1))
        assert await stream.next() == LAST_FRAME


async def test_the_oldest_blocks_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_BLOCKS", 4)
    async with ends() as pair:
        pair.outbox.kv_changed(range(10), ())
        pair.outbox.kv_changed((6,), ())
        pair.outbox.kv_changed((10,), ())
        await pair.outbox.link(pair.inbox.address)
        await until(lambda: pair.events)
        assert pair.events == [KvEvents((8, 9, 6, 10))]
