"""The replica's end of the channel: a link to each router replica that has asked for one."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

from heliostat.errors import HandoffFailedError
from heliostat.wire import Load, TokenFrame
from router.channel.merge import merge_frames, num_tokens
from router.channel.messages import Batch, Frame, Hello, encode, to_frame

BEAT_S = 0.1
"""A router hears from a replica at least this often."""

CONNECT_S = 5.0


class Link(asyncio.Protocol):
    """One connection to one router; everything that one engine step produced goes in one message.

    While the connection takes no more, frames wait here and are merged by stream: the engine never waits
    for a router, and what waits is bounded by the answers' own length.
    """

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._pending: dict[int, TokenFrame] = {}
        self._totals: dict[int, int] = {}
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

    def _flush(self) -> None:
        self._scheduled = False
        if self._paused or self.lost or not self._pending:
            return
        frames = tuple([self._frame(stream, frame) for stream, frame in self._pending.items()])
        self._pending.clear()
        self._write(frames)

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
        for call in list(self.on_lost):
            call()


class Outbox:
    """All links of one replica."""

    def __init__(self, replica: str, load: Callable[[], Load]) -> None:
        self._replica = replica
        self._load = load
        self._links: dict[str, asyncio.Task[Link]] = {}
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

    async def _connect(self, address: str) -> Link:
        place, _, secret = address.partition("/")
        host, _, port = place.rpartition(":")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            _, link = await loop.create_connection(lambda: Link(self._load), host, int(port))
        link.hello(secret, self._replica)
        link.on_lost.add(partial(self._forget, address))
        if self._beat is None:
            self._beat = loop.call_later(BEAT_S, self._on_beat)
        return link

    def _forget(self, address: str) -> None:
        self._links.pop(address, None)

    def _on_beat(self) -> None:
        for task in list(self._links.values()):
            if task.done() and task.exception() is None:
                task.result().beat()
        self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat) if self._links else None

    def close(self) -> None:
        """Close every link."""
        if self._beat is not None:
            self._beat.cancel()
        for task in self._links.values():
            if task.done() and task.exception() is None:
                task.result().close()
            else:
                task.cancel()
