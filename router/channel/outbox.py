"""The replica's end of the channel: a link to each router replica that has asked for one."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

from heliostat.errors import HandoffFailedError
from heliostat.wire import Load, TokenFrame
from router.channel.merge import merge_frames, num_tokens
from router.channel.messages import MAX_HASHES, Batch, Frame, Hello, KvEvents, encode, to_frame

BEAT_S = 0.1
"""A router hears from a replica at least this often."""

CONNECT_S = 5.0

MAX_BLOCKS = 200_000
"""Prompt blocks that a new router is told of, changes that may wait for a slow one; the oldest go first."""


class _Blocks:
    """What is last known of each prompt block, kept or dropped, in the order in which it changed."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, bool] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, blocks: Iterable[int], kept: bool) -> None:
        for block in blocks:
            self._kept[block] = kept
            self._kept.move_to_end(block)
        for _ in range(len(self._kept) - MAX_BLOCKS):
            self._kept.popitem(last=False)

    def forget(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            self._kept.pop(block, None)

    def kept(self) -> tuple[int, ...]:
        return tuple([block for block, kept in self._kept.items() if kept])

    def take(self) -> KvEvents:
        """The oldest ones as one message. Only the last change of a block is left, so their order is free."""
        taken = [self._kept.popitem(last=False) for _ in range(min(len(self._kept), MAX_HASHES))]
        return KvEvents(
            added=tuple([block for block, kept in taken if kept]),
            removed=tuple([block for block, kept in taken if not kept]),
        )


class Link(asyncio.Protocol):
    """One connection to one router; everything that one engine step produced goes in one message.

    While the connection takes no more, frames wait here and are merged by stream: the engine never waits
    for a router, and what waits is bounded by the answers' own length. Changes of the KV cache follow the
    frames of a step, or the next beat.
    """

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._pending: dict[int, TokenFrame] = {}
        self._totals: dict[int, int] = {}
        self._blocks = _Blocks()
        self._scheduled = False
        self._paused = False
        self._sent = False
        self.lost = False
        """Whether the router is gone."""
        self.on_lost: set[Callable[[], None]] = set()
        """Called when the router is gone: nobody waits for the tokens."""

    def send(self, stream: int, frame: TokenFrame) -> None:
        """Send with everything else of this step. Raises HandoffFailedError when the router is gone."""
        if self.lost:
            raise HandoffFailedError("the router is gone")
        earlier = self._pending.get(stream)
        self._pending[stream] = frame if earlier is None else merge_frames(earlier, frame)
        if not self._scheduled:
            # Whoever else has tokens of this step runs before this does.
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def kv_changed(self, added: Sequence[int], removed: Sequence[int]) -> None:
        """The replica has dropped the `removed` prompt blocks, and keeps the `added` ones since."""
        if not self.lost:
            self._blocks.put(removed, False)
            self._blocks.put(added, True)

    def close(self) -> None:
        """Send what waits, and close."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def beat(self) -> None:
        """A sign of life, if there was none since the last beat."""
        if not self._sent and not self._paused:
            self._write(())
        self._sent = False
        self._flush_blocks()

    def _flush(self) -> None:
        self._scheduled = False
        if self._pending and not self._paused and not self.lost:
            frames = tuple([self._frame(stream, frame) for stream, frame in self._pending.items()])
            self._pending.clear()
            self._write(frames)
        self._flush_blocks()

    def _flush_blocks(self) -> None:
        # A write may pause us: what is left goes when the connection takes more, after its tokens.
        while self._blocks and not self._paused and not self.lost and self._transport is not None:
            self._transport.write(encode(self._blocks.take()))

    def _frame(self, stream: int, frame: TokenFrame) -> Frame:
        total = self._totals.get(stream, 0) + num_tokens(frame)
        if frame.finished:
            self._totals.pop(stream, None)
        else:
            self._totals[stream] = total
        return to_frame(stream, total, frame)

    def forget(self, stream: int) -> None:
        """The leg is over, with or without its last frame."""
        waiting = self._pending.get(stream)
        if waiting is None or not waiting.finished:
            self._pending.pop(stream, None)
            self._totals.pop(stream, None)

    def _write(self, frames: tuple[Frame, ...]) -> None:
        if self._transport is not None and not self.lost:
            self._sent = True
            self._transport.write(encode(Batch(self._load(), frames)))

    def hello(self, secret: str, replica: str) -> None:
        """Say who we are; the first message."""
        assert self._transport is not None
        self._transport.write(encode(Hello(secret, replica)))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's classes derive from nothing

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._pending.clear()
        self._blocks = _Blocks()
        for call in list(self.on_lost):
            call()


class Outbox:
    """All links of one replica."""

    def __init__(self, replica: str, load: Callable[[], Load]) -> None:
        self._replica = replica
        self._load = load
        self._links: dict[str, asyncio.Task[Link]] = {}
        self._open: set[Link] = set()
        self._blocks = _Blocks()
        self._beat: asyncio.TimerHandle | None = None

    async def link(self, address: str) -> Link:
        """The link to the router at `address` (`Inbox.address`), made on the first call.

        Raises HandoffFailedError when nobody listens there.
        """
        task = self._links.get(address)
        if task is None or (task.done() and (task.exception() is not None or task.result().lost)):
            task = self._links[address] = asyncio.create_task(self._connect(address))
        try:
            return await asyncio.shield(task)
        except (OSError, TimeoutError) as error:
            self._links.pop(address, None)
            raise HandoffFailedError(f"{self._replica}: no router listens at its address: {error}") from error

    def kv_changed(self, added: Sequence[int], removed: Sequence[int]) -> None:
        """Tell every router, later ones too, that the replica's engine has dropped the `removed` prompt
        blocks (`PrefixIndex.hashes`) and keeps the `added` ones since; leading blocks come first."""
        self._blocks.forget(removed)
        self._blocks.put(added, True)
        for link in self._open:
            link.kv_changed(added, removed)

    async def _connect(self, address: str) -> Link:
        place, _, secret = address.partition("/")
        host, _, port = place.rpartition(":")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            _, link = await loop.create_connection(lambda: Link(self._load), host, int(port))
        link.hello(secret, self._replica)
        link.on_lost.add(partial(self._forget, address, link))
        # From here on the link hears of every change, so it misses none.
        link.kv_changed(self._blocks.kept(), ())
        self._open.add(link)
        if self._beat is None:
            self._beat = loop.call_later(BEAT_S, self._on_beat)
        return link

    def _forget(self, address: str, link: Link) -> None:
        self._links.pop(address, None)
        self._open.discard(link)

    def _on_beat(self) -> None:
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat) if self._links else None
        for link in list(self._open):
            link.beat()

    def close(self) -> None:
        """Close every link."""
        if self._beat is not None:
            self._beat.cancel()
        for task in self._links.values():
            if task.done() and task.exception() is None:
                task.result().close()
            else:
                task.cancel()
