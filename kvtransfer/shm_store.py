"""The owner's half of the shm transport: segments that are written, kept, and reused (see `shm`)."""

import itertools
import mmap
import os
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heliostat.errors import NoSpaceError, TransportError
from heliostat.spec import Transfer
from kvtransfer.memory import copy_into
from kvtransfer.owner import OwnerFolder, checked
from kvtransfer.shm import (
    HEADER_PAGE,
    KEPT,
    LENGTH,
    MAPPED_BYTES,
    SETTLED,
    STATE,
    STATE_AT,
    batches,
    set_lease,
    sweep_tickets,
    ticket_path,
)
from kvtransfer.transport import Buffers, KVHeader

BUSY = ".busy"
CLOSED = -1


@dataclass(slots=True, eq=False)
class _Segment:
    """One file of ours, open while it is written: a kept segment costs no descriptor.

    A large one is mapped for good: once its pages are there, copying through the mapping runs at the
    speed of memory (`benchmarks.transfer`). Its pages are allocated before (`posix_fallocate`), so
    that a full tmpfs is an ENOSPC here, too.
    """

    path: Path
    size: int
    fd: int
    memory: mmap.mmap | None = None


class ShmStore:
    """`kvtransfer.transport.KVStore` over files; never more than `memory_gib` of them.

    Segments are reused, least recently written first: faulting new pages of a tmpfs costs four to ten
    times as much as copying into pages that are there.
    """

    def __init__(self, transfer: Transfer, owner: str) -> None:
        self._owner = OwnerFolder(transfer, owner)
        self._folder = self._owner.path
        self._directory = self._folder.parent
        self.lease_s = transfer.lease_s
        self._limit = int(transfer.memory_gib * 2**30)
        self._used = 0
        self._kept: OrderedDict[Path, _Segment] = OrderedDict()  # the one written longest ago first
        self._busy: set[_Segment] = set()
        self._numbers = itertools.count()
        (self._folder / SETTLED).touch(0o600)

    def open(self, name: str, header: KVHeader) -> "ShmWriter":
        ticket = ticket_path(self._directory, name)
        encoded = header.encode()
        if LENGTH.size + len(encoded) > STATE_AT:
            raise TransportError(f"a KV header of {len(encoded)} bytes does not fit its page")
        segment = None
        try:
            segment = self._take(HEADER_PAGE + header.num_bytes)
            page = LENGTH.pack(len(encoded)) + encoded
            state = STATE.pack(uuid.uuid4().bytes, 0)
            os.pwrite(segment.fd, page.ljust(STATE_AT, b"\0") + state, 0)
            set_lease(segment.fd, self.lease_s)
            ticket.unlink(missing_ok=True)
            os.link(segment.path, ticket)
        except OSError as error:
            if segment is not None:
                self.drop(segment)
            raise TransportError(f"cannot put KV into {self._directory}: {error.strerror}") from error
        return ShmWriter(self, segment, ticket, header)

    def release(self, name: str) -> None:
        try:
            ticket_path(self._directory, name).unlink(missing_ok=True)
        except OSError as error:
            raise TransportError(f"cannot release ticket {name}: {error.strerror}") from error

    def close(self) -> None:
        """Our segments go; a ticket that is out keeps its own until its lease ends."""
        for segment in list(self._busy):
            self.drop(segment)
        for segment in self._kept.values():
            if segment.memory is not None:
                segment.memory.close()
        self._owner.close()

    def _take(self, size: int) -> _Segment:
        """Room for a segment: new as long as there is some left, then that of the one written longest ago."""
        segment = self._reuse(size)
        if segment is None and self._used + size > self._limit and sweep_tickets(self._directory):
            segment = self._reuse(size)
        if segment is not None:
            return segment
        if self._used + size > self._limit:
            raise NoSpaceError(
                f"{size} bytes of KV do not fit: tickets that nobody has fetched yet hold {self._used} of "
                f"{self._limit} bytes; raise transfer.memory_gib, or lower transfer.lease_s"
            )
        path = self._folder / f"{next(self._numbers)}{BUSY}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._used += size
        segment = _Segment(path, size, fd)
        self._busy.add(segment)
        if size >= MAPPED_BYTES:
            try:
                os.posix_fallocate(fd, 0, size)
                segment.memory = mmap.mmap(fd, size)
            except OSError:
                self.drop(segment)
                raise
        return segment

    def _reuse(self, size: int) -> _Segment | None:
        """A kept segment that nobody has a ticket of; others that are in the way of a new one go."""
        for path in list(self._kept):
            if self._used + size <= self._limit:
                return None
            if (segment := self._claim(path)) is None:
                continue
            if size <= segment.size <= 2 * size:  # a larger one would waste the room
                return segment
            self.drop(segment)
        return None

    def _claim(self, kept: Path) -> _Segment | None:
        """Take a segment back unless it has a ticket, which the kernel counts as one more link."""
        if kept.stat().st_nlink > 1:
            return None
        path = kept.rename(self._folder / f"{next(self._numbers)}{BUSY}")  # nobody can link it any more
        if path.stat().st_nlink > 1:  # shared at the last moment
            path.rename(kept)
            return None
        segment = self._kept.pop(kept)
        segment.path, segment.fd = path, os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._busy.add(segment)
        return segment

    def drop(self, segment: _Segment) -> None:
        """Give up a segment that is being written."""
        segment.path.unlink(missing_ok=True)
        os.close(segment.fd)
        if segment.memory is not None:
            segment.memory.close()
        self._busy.remove(segment)
        self._used -= segment.size

    def keep(self, segment: _Segment, prefix_digest: str) -> None:
        """The segment is whole: from now on its prompt can be found by its digest."""
        path = self._folder / (checked(prefix_digest) + KEPT)
        if (older := self._kept.pop(path, None)) is not None:
            # No longer found, but its room counts as long as tickets hold it.
            older.path = path.rename(self._folder / f"{next(self._numbers)}{BUSY}")
            self._kept[older.path] = older
        segment.path = segment.path.rename(path)
        set_lease(segment.fd, self.lease_s)
        os.close(segment.fd)
        segment.fd = CLOSED
        self._busy.remove(segment)
        self._kept[path] = segment


class ShmWriter:
    """A segment that is being written (`kvtransfer.transport.KVWriter`)."""

    def __init__(self, store: ShmStore, segment: _Segment, ticket: Path, header: KVHeader) -> None:
        self._store = store
        self._segment = segment
        self._ticket = ticket
        self._header = header

    def write(self, first_block: int, layers: Sequence[Buffers]) -> None:
        num_blocks = self._header.check_blocks(first_block, layers)
        fd = self._segment.fd
        try:
            for layer, buffers in enumerate(layers):
                offset = HEADER_PAGE + self._header.offset(layer, first_block)
                if self._segment.memory is None:
                    _write_all(fd, buffers, offset)
                else:
                    copy_into(self._segment.memory, offset, buffers)
            ready = STATE.pack(b"", first_block + num_blocks)[16:]
            os.pwrite(fd, ready, STATE_AT + 16)
            set_lease(fd, self._store.lease_s)  # a long prefill keeps its ticket
        except OSError as error:
            raise TransportError(f"cannot put KV into {self._ticket.parent}: {error.strerror}") from error

    def commit(self) -> None:
        try:
            self._store.keep(self._segment, self._header.prefix_digest)
        except OSError as error:
            raise TransportError(f"cannot keep KV in {self._ticket.parent}: {error.strerror}") from error

    def abort(self) -> None:
        try:
            self._ticket.unlink(missing_ok=True)
            # Readers that are in the middle must not wait for the rest.
            os.pwrite(self._segment.fd, STATE.pack(uuid.uuid4().bytes, 0), STATE_AT)
        except OSError:
            pass  # its folder is gone, and the ticket with it
        finally:
            self._store.drop(self._segment)


def _write_all(fd: int, buffers: Buffers, offset: int) -> int:
    """Write the views one after the other; returns the offset behind them. Short writes go on."""
    for batch in batches(buffers):
        pending = batch
        while pending:
            written = os.pwritev(fd, pending, offset)
            offset += written
            while pending and written >= pending[0].nbytes:
                written -= pending[0].nbytes
                pending = pending[1:]
            if pending and written:
                pending = [pending[0][written:], *pending[1:]]
    return offset
