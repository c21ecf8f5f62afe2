"""The router's end of the channel: one server, one connection per replica, one stream per decode leg."""

import asyncio
import secrets
import socket
from collections.abc import Callable, Sequence

from heliostat.errors import HandoffFailedError, RequestError
from heliostat.wire import Load, TokenFrame
from router.channel.merge import merge_frames, num_tokens
from router.channel.messages import Batch, ChannelError, Hello, KvEvents, Message, Splitter, from_frame

WATCH_S = 0.25
"""Between two looks at streams that wait for a token."""

TAIL_S = 5.0
"""How long tokens may come after the end of their leg: another path brings them, but not so much slower."""


class Stream:
    """The token frames of one decode leg, for one reader.

    Holds at most one frame: what comes before the reader has taken it is merged into it, so a slow client
    costs one answer's tokens here, and nothing in the replica.
    """

    def __init__(self, number: int, first_token_s: float, idle_s: float) -> None:
        self.number = number
        self.replica = ""
        """The replica that the tokens came from, once there are some."""
        self._loop = asyncio.get_running_loop()
        self._first_token_s, self._idle_s = first_token_s, idle_s
        self._due = self._loop.time() + first_token_s
        self._received = 0
        self._frame: TokenFrame | None = None
        self._finished = False
        self._failure: RequestError | None = None
        self._reader: asyncio.Future[None] | None = None

    async def next(self) -> TokenFrame | None:
        """What came since the last call, or as soon as something comes; None after the last frame.

        Raises HandoffFailedError when the stream broke, or what `fail` was called with; only after
        everything that came before.
        """
        while True:
            if (frame := self._frame) is not None:
                self._frame = None
                return frame
            if self._failure is not None:
                raise self._failure
            if self._finished:
                return None
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    def begins_later(self) -> None:
        """No replica has the leg yet: its first token is due from now on."""
        self._due = self._loop.time() + self._first_token_s

    def put(self, frame: TokenFrame, total: int) -> None:
        """A frame arrived, after which the leg counts `total` tokens."""
        if self._finished or self._failure is not None:
            return
        self._received += num_tokens(frame)
        if self._received != total:
            self.fail(HandoffFailedError(f"of {total} tokens {self._received} arrived", frame.load.replica))
            return
        self.replica = frame.load.replica
        self._due = self._loop.time() + self._idle_s
        self._frame = merge_frames(self._frame, frame) if self._frame is not None else frame
        self._finished = frame.finished
        self._wake()

    def fail(self, error: RequestError) -> None:
        """The leg is over without its last frame; ignored when that has come."""
        if not self._finished and self._failure is None:
            self._failure = error
            self._wake()

    def ended(self, total: int) -> None:
        """The replica says that the leg is over, and how much it sent: the rest may still be on its way."""
        if not self._finished:
            self._due = min(self._due, self._loop.time() + TAIL_S)

    def look(self, now: float) -> None:
        """Fail when the next token is overdue."""
        if now > self._due and not self._finished:
            where = f"{self.replica}: no further token" if self.replica else "no first token"
            self.fail(HandoffFailedError(f"{where} came in time", self.replica))

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Inbox:
    """Listens for replicas and hands their frames to the streams.

    `on_load` gets what they carry, `on_lost` the name of one whose connection broke, `on_kv` a replica's
    name, the prompt blocks that it keeps now, and those that it dropped before.
    """

    def __init__(
        self,
        host: str,
        on_load: Callable[[Load], None],
        on_lost: Callable[[str], None],
        on_kv: Callable[[str, Sequence[int], Sequence[int]], None],
        *,
        first_token_s: float,
        idle_s: float,
    ) -> None:
        self._on_load, self._on_lost, self._on_kv = on_load, on_lost, on_kv
        self._first_token_s, self._idle_s = first_token_s, idle_s
        self._secret = secrets.token_urlsafe(16)
        self._streams: dict[int, Stream] = {}
        self._links: set[_Link] = set()
        self._next = 0
        self._socket = socket.create_server((host, 0), backlog=1024)
        self.address = f"{host}:{self._socket.getsockname()[1]}/{self._secret}"
        """Where replicas send to; whoever knows it may send."""
        self._server: asyncio.Server | None = None
        self._watch: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Begin to listen on the running event loop."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self), sock=self._socket)
        self._watch = loop.call_later(WATCH_S, self._look)

    def close(self) -> None:
        """Stop listening and drop every connection; streams that wait fail."""
        if self._watch is not None:
            self._watch.cancel()
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for link in list(self._links):
            link.drop()
        for stream in self._streams.values():
            stream.fail(HandoffFailedError("the router stops"))

    def open(self) -> Stream:
        """A stream for a new leg; its number goes with the request."""
        self._next += 1
        stream = self._streams[self._next] = Stream(self._next, self._first_token_s, self._idle_s)
        return stream

    def forget(self, stream: Stream) -> None:
        """Nobody reads it any more; frames that still come for it are dropped."""
        self._streams.pop(stream.number, None)

    @property
    def num_streams(self) -> int:
        """Streams that somebody reads."""
        return len(self._streams)

    def admits(self, hello: Hello) -> bool:
        """Whether the caller knows our secret."""
        return secrets.compare_digest(hello.secret, self._secret)

    def received(self, batch: Batch) -> None:
        """One message of a replica."""
        self._on_load(batch.load)
        for frame in batch.frames:
            if stream := self._streams.get(frame.stream):
                stream.put(from_frame(frame, batch.load), frame.total)

    def kv_changed(self, replica: str, events: KvEvents) -> None:
        """What a replica keeps of prompts has changed."""
        self._on_kv(replica, events.added, events.removed)

    def linked(self, link: "_Link") -> None:
        """A replica connected."""
        self._links.add(link)

    def lost(self, link: "_Link") -> None:
        """A replica's connection is gone, and with it the tokens that were on their way."""
        self._links.discard(link)
        if not link.replica:
            return
        self._on_lost(link.replica)
        for stream in list(self._streams.values()):
            if stream.replica == link.replica:
                stream.fail(HandoffFailedError(f"{link.replica}: the replica was lost", link.replica, True))

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(WATCH_S, self._look)
        now = loop.time()
        for stream in self._streams.values():
            stream.look(now)


class _Link(asyncio.Protocol):
    """One replica's connection."""

    def __init__(self, inbox: Inbox) -> None:
        self.replica = ""
        self._inbox = inbox
        self._splitter = Splitter()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._inbox.linked(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._splitter.feed(data):
                self._take(message)
        except ChannelError:
            self.drop()  # a stranger, or a bug on the other side; either way nothing more can be read

    def _take(self, message: Message) -> None:
        if isinstance(message, Batch) and self.replica:
            self._inbox.received(message)
        elif isinstance(message, KvEvents) and self.replica:
            self._inbox.kv_changed(self.replica, message)
        elif isinstance(message, Hello) and not self.replica and self._inbox.admits(message):
            self.replica = message.replica
        else:
            raise ChannelError("a message out of turn")

    def connection_lost(self, error: Exception | None) -> None:
        self._inbox.lost(self)

    def drop(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
