"""Everybody's half of transports that read from the owner's memory (see `memory_store`)."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from heliostat.errors import KVRefusedError, OwnerLostError, TransportError
from heliostat.spec import Transfer
from kvtransfer.arena import Span
from kvtransfer.control import ANSWER_S, ControlClient, Message, Value
from kvtransfer.memory_store import SOCKET
from kvtransfer.owner import checked, host_identity, make_directory, remove_dead
from kvtransfer.transport import Buffers, KVHeader, Outcome, Settlement

Send = Callable[[Sequence[Span]], None]
"""Ask the owner for its part of a read; raises TransportError unless it held the KV for us until now."""


class ReaderLink(Protocol):
    """One reader's way to one owner's arena."""

    def introduce(self) -> Message:
        """What the owner has to know about us."""

    def meet(self, introduction: Message) -> None:
        """What the owner answered. Raises TransportError."""

    def fetch(self, spans: Sequence[Span], into: Sequence[memoryview], send: Send) -> None:
        """Fill each view from the span beside it. Raises OwnerLostError when the owner goes meanwhile."""

    def close(self) -> None:
        """Leave the owner."""


class Network(Protocol):
    """Makes links, with what they have in common in this process."""

    def attach(self, regions: Buffers) -> None:
        """Memory that reads will go to."""

    def link(self) -> ReaderLink:
        """A link to an owner that was not met yet."""


@dataclass(slots=True)
class _Peer:
    """An owner that we read from, and the connection on which we met it."""

    control: ControlClient
    link: ReaderLink | None = None
    connection: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def meet(self, network: Network) -> ReaderLink:
        """Our link; a new connection is a new acquaintance: the owner forgot us when the old one ended."""
        if self.link is not None and self.control.is_on(self.connection):
            return self.link
        if self.link is not None:
            self.link.close()
            self.link = None
        link = network.link()
        introduction = self.control.call("meet", **link.introduce())
        connection = self.control.connection
        link.meet(introduction)
        self.link, self.connection = link, connection
        return link


class MemoryClient:
    """`kvtransfer.transport.KVClient` over control channels; `owner` is this replica's store, if any."""

    def __init__(self, transfer: Transfer, owner: str, network: Network) -> None:
        self._directory = make_directory(transfer)
        self._own = ControlClient(str(self._directory / checked(owner) / SOCKET))
        self._network = network
        self._peers: dict[str, _Peer] = {}
        self._lock = threading.Lock()

    def address(self) -> str:
        return str(self._own.call("hello")["address"])

    def get(self, name: str, address: str) -> "MemoryReader":
        peer = self._peer(address)
        with peer.lock:
            try:
                link = peer.meet(self._network)
                opened = peer.control.call("open", ANSWER_S, peer.connection, name=name)
            except OwnerLostError:
                self._forget(address, peer)
                raise
            return MemoryReader(address.partition("/")[0], opened, peer.control, peer.connection, link)

    def _forget(self, address: str, peer: _Peer) -> None:
        """Replicas come and go under new addresses; what one of the past cost is given back."""
        with self._lock:
            self._peers.pop(address.partition("/")[0], None)
        if peer.link is not None:
            peer.link.close()
            peer.link = None

    def release(self, name: str, address: str, outcome: Outcome) -> bool:
        return bool(self._peer(address).control.call("release", name=name, outcome=outcome)["released"])

    def share(self, prefix_digest: str, name: str) -> KVHeader | None:
        header = self._own.call("share", prefix_digest=prefix_digest, name=name)["header"]
        return None if header is None else KVHeader.decode(str(header).encode())

    def sweep(self) -> int:
        remove_dead(self._directory)
        return int(str(self._own.call("sweep")["swept"]))

    def settled(self) -> list[Settlement]:
        listed = self._own.call("settled")["settled"]
        assert isinstance(listed, list)
        return [Settlement(str(name), Outcome(str(outcome))) for name, outcome in map(_pair, listed)]

    def attach(self, regions: Buffers) -> None:
        self._network.attach(regions)

    def _peer(self, address: str) -> _Peer:
        """The owner at an address `host:port/boot`. Raises KVRefusedError for one out of reach."""
        place, _, boot = address.partition("/")
        if place.startswith("127.") and boot != host_identity():
            raise KVRefusedError(
                f"the KV is offered on {place} of another host; say `transfer: {{host: node}}` in the spec"
            )
        with self._lock:
            return self._peers.setdefault(place, _Peer(ControlClient(place)))


class MemoryReader:
    """Open KV in an owner's arena (`kvtransfer.transport.KVReader`)."""

    def __init__(
        self, place: str, opened: Message, control: ControlClient, connection: int, link: ReaderLink
    ) -> None:
        self._number = opened["reader"]
        # Waiting has a connection of its own: others read from this owner meanwhile.
        self._waiting = ControlClient(place)
        self._header = KVHeader.decode(str(opened["header"]).encode())
        self._start = int(str(opened["start"]))
        self._ready = int(str(opened["ready"]))
        self._control = control
        self._connection = connection
        self._link = link

    @property
    def header(self) -> KVHeader:
        return self._header

    def wait(self, num_blocks: int, timeout_s: float) -> int:
        if self._ready < num_blocks:
            answer = self._waiting.call(
                "wait", timeout_s + ANSWER_S, reader=self._number, blocks=num_blocks, timeout_s=timeout_s
            )
            self._ready = int(str(answer["ready"]))
        if self._ready < num_blocks:
            raise OwnerLostError(
                f"{self._ready} of {self._header.num_blocks} blocks came, and then no more: "
                "the prefill replica gave up or stalls"
            )
        return self._ready

    def read(self, first_block: int, layers: Sequence[Buffers]) -> None:
        self._header.check_blocks(first_block, layers)
        spans: list[Span] = []
        views: list[memoryview] = []
        for layer, buffers in enumerate(layers):
            start = self._start + self._header.offset(layer, first_block)
            for view in buffers:
                spans.append(Span(start, view.nbytes))
                views.append(view)
                start += view.nbytes
        try:
            if views:
                self._link.fetch(spans, views, self._send)
        except TransportError:
            # Half of a read may still be under way: nobody shall take its bytes for those of the next.
            self._control.close(self._connection)
            raise

    def _send(self, spans: Sequence[Span]) -> None:
        pairs: list[Value] = [[span.start, span.size] for span in spans]
        self._control.call("send", ANSWER_S, self._connection, reader=self._number, spans=pairs)

    def close(self) -> None:
        self._waiting.close()
        try:
            self._control.call("close", ANSWER_S, self._connection, reader=self._number)
        except TransportError:
            return  # the owner is gone, and with it what we had open


def _pair(value: Value) -> tuple[Value, Value]:
    assert isinstance(value, list)
    first, second = value
    return first, second
