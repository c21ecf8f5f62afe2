"""The owner's half of transports that read from the owner's memory: an arena, and who may read what.

A reader connects (`kvtransfer.control`), meets the owner's link once, and then opens tickets:

    meet     introductions are exchanged; what they say is the link's affair
    open     header and place of a ticket's KV; it stays where it is until `close`, whatever its lease
    wait     until more blocks of it are written
    send     the owner's part of a read, for links in which the owner has one
    close    the reader is done
    release  the ticket is over

and the owner's own replica calls hello, share, sweep and settled through the same channel.
"""

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from heliostat.errors import KVRefusedError, NoSpaceError, TicketExpiredError
from heliostat.spec import Transfer
from kvtransfer.arena import Arena, Span
from kvtransfer.control import ControlServer, Message, Session, Value
from kvtransfer.memory import copy_into
from kvtransfer.owner import OwnerFolder, host_identity
from kvtransfer.transport import Buffers, KVHeader, Outcome

SOCKET = "control"


class OwnerLink(Protocol):
    """How bytes of the arena get to readers. Handlers run in the thread of the reader's connection."""

    def meet(self, session: Session, introduction: Message) -> Message:
        """A reader introduces itself; our introduction in return."""

    def send(self, session: Session, spans: Sequence[Span]) -> None:
        """The owner's part of a read, if there is one."""

    def busy(self, readers: int) -> None:
        """So many tickets are open: a link that needs the owner's help for reads gives it now."""

    def close(self) -> None:
        """No more readers."""


@dataclass(slots=True, eq=False)
class _Entry:
    """KV in the arena: in use while it is written, read, or has tickets; then kept until room is wanted."""

    header: KVHeader
    span: Span
    ready: int = 0
    readers: int = 0
    writing: bool = True
    tickets: dict[str, float] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        return not (self.writing or self.readers or self.tickets)


class MemoryStore:
    """`kvtransfer.transport.KVStore` over an arena of `transfer.memory_gib`."""

    def __init__(self, transfer: Transfer, owner: str, link: Callable[[Arena], OwnerLink]) -> None:
        self._lease_s = transfer.lease_s
        self._arena = Arena(int(transfer.memory_gib * 2**30))
        self._changed = threading.Condition()  # its lock may be taken again by who holds it
        self._tickets: dict[str, _Entry] = {}
        self._kept: OrderedDict[str, _Entry] = OrderedDict()
        self._settled: list[tuple[str, str]] = []
        self._opened: dict[int, _Entry] = {}
        self._sessions: dict[Session, set[int]] = {}
        self._numbers = itertools.count()
        self._link = link(self._arena)
        self._owner = OwnerFolder(transfer, owner)
        self._server = ControlServer(
            {
                "hello": lambda session, message: {"address": f"{self._server.address}/{host_identity()}"},
                "meet": self._link.meet,
                "open": self._on_open,
                "wait": self._on_wait,
                "send": self._on_send,
                "close": self._on_close,
                "release": self._on_release,
                "share": self._on_share,
                "sweep": lambda session, message: {"swept": self._sweep()},
                "settled": self._on_settled,
            },
            str(self._owner.path / SOCKET),
            transfer.host,
        )

    def open(self, name: str, header: KVHeader) -> "MemoryWriter":
        with self._changed:
            entry = _Entry(header, self._reserve(header.num_bytes))
            self._end(name, Outcome.RELEASED)
            self._give(entry, name)
        return MemoryWriter(self, entry, name)

    def release(self, name: str) -> None:
        with self._changed:
            self._end(name, Outcome.RELEASED)

    def close(self) -> None:
        self._server.close()
        self._link.close()
        self._owner.close()

    # What a writer does; copies run without the lock.

    def fill(self, entry: _Entry, first_block: int, layers: Sequence[Buffers]) -> None:
        num_blocks = entry.header.check_blocks(first_block, layers)
        for layer, buffers in enumerate(layers):
            copy_into(self._arena.memory, entry.span.start + entry.header.offset(layer, first_block), buffers)
        with self._changed:
            entry.ready = first_block + num_blocks
            self._renew(entry)  # a long prefill keeps its ticket
            self._changed.notify_all()

    def finish(self, entry: _Entry, kept: bool) -> None:
        """The writer is done with it."""
        with self._changed:
            entry.writing = False
            if kept:
                digest = entry.header.prefix_digest
                if older := self._kept.pop(digest, None):
                    self._collect(older)
                self._kept[digest] = entry
                self._renew(entry)
            else:
                for name in list(entry.tickets):
                    self._end(name, Outcome.RELEASED)
                self._collect(entry)
            self._changed.notify_all()

    # What readers ask for.

    def _on_open(self, session: Session, message: Message) -> Message:
        name = str(message["name"])
        with self._changed:
            entry = self._entry(name)
            reader = next(self._numbers)
            entry.readers += 1
            self._opened[reader] = entry
            self._link.busy(len(self._opened))
            if session not in self._sessions:
                self._sessions[session] = set()
                session.on_end(lambda: self._leave(session))
            self._sessions[session].add(reader)
            return {
                "reader": reader,
                "header": entry.header.encode().decode(),
                "start": entry.span.start,
                "ready": entry.ready,
            }

    def _on_wait(self, session: Session, message: Message) -> Message:
        reader, wanted = int(str(message["reader"])), int(str(message["blocks"]))
        with self._changed:
            entry = self._held(reader)
            self._changed.wait_for(
                lambda: entry.ready >= wanted or not entry.writing or reader not in self._opened,
                float(str(message["timeout_s"])),
            )
            return {"ready": entry.ready}

    def _on_send(self, session: Session, message: Message) -> Message:
        spans = message["spans"]
        assert isinstance(spans, list)
        with self._changed:
            # A session ends in its own thread, which is this one: what is held now is held until we answer.
            entry = self._held(int(str(message["reader"])))
        wanted = [_span(each) for each in spans]
        end = entry.span.start + entry.span.size
        if any(span.start < entry.span.start or span.start + span.size > end for span in wanted):
            raise KVRefusedError("a reader may have the KV that its ticket stands for, and no other")
        self._link.send(session, wanted)
        return {}

    def _on_close(self, session: Session, message: Message) -> Message:
        self._close(session, int(str(message["reader"])))
        return {}

    def _on_release(self, session: Session, message: Message) -> Message:
        with self._changed:
            return {"released": self._end(str(message["name"]), Outcome(str(message["outcome"])))}

    def _on_share(self, session: Session, message: Message) -> Message:
        with self._changed:
            entry = self._kept.get(str(message["prefix_digest"]))
            if entry is None:
                return {"header": None}
            self._end(str(message["name"]), Outcome.RELEASED)
            self._give(entry, str(message["name"]))
            return {"header": entry.header.encode().decode()}

    def _on_settled(self, session: Session, message: Message) -> Message:
        with self._changed:
            settled, self._settled = self._settled, []
        listed: list[Value] = [[name, outcome] for name, outcome in settled]
        return {"settled": listed}

    def _close(self, session: Session, reader: int) -> None:
        with self._changed:
            if reader in self._sessions.get(session, ()):
                self._sessions[session].remove(reader)
                entry = self._opened.pop(reader)
                entry.readers -= 1
                self._link.busy(len(self._opened))
                self._collect(entry)
                self._changed.notify_all()

    def _leave(self, session: Session) -> None:
        with self._changed:
            for reader in list(self._sessions[session]):
                self._close(session, reader)
            del self._sessions[session]

    # The book-keeping; the lock is held.

    def _held(self, reader: int) -> _Entry:
        if entry := self._opened.get(reader):
            return entry
        raise TicketExpiredError("the KV is no longer held for this reader: its connection was lost")

    def _entry(self, name: str) -> _Entry:
        if entry := self._tickets.get(name):
            return entry
        raise TicketExpiredError(f"the KV of ticket {name} is gone: its lease ended, or it was released")

    def _give(self, entry: _Entry, name: str) -> None:
        entry.tickets[name] = time.monotonic() + self._lease_s
        self._tickets[name] = entry

    def _renew(self, entry: _Entry) -> None:
        for name in entry.tickets:
            entry.tickets[name] = time.monotonic() + self._lease_s

    def _end(self, name: str, outcome: Outcome) -> bool:
        entry = self._tickets.pop(name, None)
        if entry is None:
            return False
        del entry.tickets[name]
        self._settled.append((name, outcome))
        self._collect(entry)
        return True

    def _collect(self, entry: _Entry) -> None:
        """Free the room of KV that nobody can ask for any more."""
        if entry.free and self._kept.get(entry.header.prefix_digest) is not entry and entry.span.size:
            self._arena.free(entry.span)
            entry.span = Span(0, 0)

    def _reserve(self, num_bytes: int) -> Span:
        while (span := self._arena.reserve(num_bytes)) is None:
            free = next((digest for digest, entry in self._kept.items() if entry.free), None)
            if free is None:
                if self._sweep():
                    continue
                raise NoSpaceError(
                    f"{num_bytes} bytes of KV do not fit: tickets that nobody has fetched yet leave "
                    f"{self._arena.free_bytes} of {self._arena.size} bytes; raise transfer.memory_gib, or "
                    "lower transfer.lease_s"
                )
            self._collect(self._kept.pop(free))
        return span

    def _sweep(self) -> int:
        with self._changed:
            now = time.monotonic()
            over = [name for name, entry in self._tickets.items() if entry.tickets[name] < now]
            for name in over:
                self._end(name, Outcome.EXPIRED)
            return len(over)


class MemoryWriter:
    """KV that is being written into the arena (`kvtransfer.transport.KVWriter`)."""

    def __init__(self, store: MemoryStore, entry: _Entry, name: str) -> None:
        self._store = store
        self._entry = entry
        self._name = name

    def write(self, first_block: int, layers: Sequence[Buffers]) -> None:
        self._store.fill(self._entry, first_block, layers)

    def commit(self) -> None:
        self._store.finish(self._entry, kept=True)

    def abort(self) -> None:
        self._store.finish(self._entry, kept=False)


def _span(pair: Value) -> Span:
    assert isinstance(pair, list)
    start, size = pair
    return Span(int(str(start)), int(str(size)))
