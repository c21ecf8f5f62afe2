"""KV between processes of one host: files in a tmpfs directory. This file reads; `shm_store` writes.

    directory/<ticket>.kv              a ticket: one more name (hard link) of a segment
    directory/<owner>/<digest>.kept    a segment that is whole: the KV of the prompt with that digest
    directory/<owner>/<n>.busy         a segment that is being written
    directory/<owner>/settled          how tickets of this owner ended, one line each

A segment without a ticket is kept until its owner wants the room: the same prompt, asked again, costs a
link. Its pages are there already, which is most of what writing new KV into shared memory costs.

A segment is a page, then the blocks, layer after layer:

    | length, header (JSON) … generation, blocks ready | layer 0: block 0 … | layer 1: block 0 … | … |

A copy goes straight between the engine's KV memory and the segment: small ones with `pwritev` and
`preadv`, large ones through mappings that both sides keep, since segments are reused. A reader compares
the generation after it has read: a segment that was reused meanwhile is an expired ticket, not wrong KV.
`multiprocessing.shared_memory` is not used because its resource tracker unlinks segments of others.
"""

import fcntl
import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from heliostat.errors import KVRefusedError, OwnerLostError, TicketExpiredError, TransportError
from heliostat.spec import Transfer
from kvtransfer.mappings import Mapping, Mappings
from kvtransfer.owner import checked, host_identity, is_alive, make_directory, remove_dead
from kvtransfer.transport import Buffers, KVHeader, Outcome, Settlement

HEADER_PAGE = 4096
IOV_MAX = 512
MAPPED_BYTES = 2**20
"""From this size on, segments are mapped. There may be thousands of smaller ones."""
LENGTH = struct.Struct("<I")
STATE = struct.Struct("<16sI")
"""The generation of a segment, drawn anew at each use, and how many of its blocks are ready."""
STATE_AT = HEADER_PAGE - STATE.size
TICKET = ".kv"
KEPT = ".kept"
SETTLED = "settled"
POLL_S = 0.0005


class ShmClient:
    """`kvtransfer.transport.KVClient` over a directory; `owner` is the store of this replica, if any."""

    def __init__(self, transfer: Transfer, owner: str) -> None:
        self._directory = make_directory(transfer)
        self._lease_s = transfer.lease_s
        self._owner = checked(owner)
        self._mappings = Mappings(2 * int(transfer.memory_gib * 2**30))

    def address(self) -> str:
        return f"{files_identity(self._directory)}/{self._owner}"

    def get(self, name: str, address: str) -> "ShmReader":
        owner = self._owner_folder(address)
        try:
            fd = os.open(ticket_path(self._directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
        except FileNotFoundError as error:
            raise TicketExpiredError(f"the KV of ticket {name} is gone from {self._directory}") from error
        except OSError as error:
            raise TransportError(f"cannot open the KV of ticket {name}: {error.strerror}") from error
        try:
            page = os.pread(fd, HEADER_PAGE, 0)
            (length,) = LENGTH.unpack_from(page)
            generation, _ = STATE.unpack_from(page, STATE_AT)
            header = KVHeader.decode(page[LENGTH.size : LENGTH.size + length])
            return ShmReader(fd, header, generation, owner, self._mappings)
        except (struct.error, TransportError) as error:
            os.close(fd)
            raise TransportError(f"the KV of ticket {name} is damaged") from error

    def release(self, name: str, address: str, outcome: Outcome) -> bool:
        owner = self._owner_folder(address)
        try:
            ticket_path(self._directory, name).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise TransportError(f"cannot release ticket {name}: {error.strerror}") from error
        _journal(owner, name, outcome)
        return True

    def share(self, prefix_digest: str, name: str) -> KVHeader | None:
        kept = self._directory / self._owner / (checked(prefix_digest) + KEPT)
        ticket = ticket_path(self._directory, name)
        try:
            with open(kept, "rb") as segment:  # before there is a ticket that a sweep could find over
                set_lease(segment.fileno(), self._lease_s)
            os.link(kept, ticket)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TransportError(f"cannot share KV in {self._directory}: {error.strerror}") from error
        # The owner may have been about to reuse the segment: what counts is what the ticket opens now.
        try:
            with open(ticket, "rb") as segment:
                page = segment.read(HEADER_PAGE)
            (length,) = LENGTH.unpack_from(page)
            header = KVHeader.decode(page[LENGTH.size : LENGTH.size + length])
            _, ready = STATE.unpack_from(page, STATE_AT)
        except (OSError, struct.error, TransportError):
            header, ready = None, 0
        if header is None or header.prefix_digest != prefix_digest or ready != header.num_blocks:
            ticket.unlink(missing_ok=True)
            return None
        return header

    def sweep(self) -> int:
        remove_dead(self._directory)
        return sweep_tickets(self._directory)

    def settled(self) -> list[Settlement]:
        try:
            with open(self._directory / self._owner / SETTLED, "r+") as journal:
                fcntl.flock(journal, fcntl.LOCK_EX)
                lines = journal.read().split("\n")[:-1]
                journal.truncate(0)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TransportError(f"cannot read how tickets ended: {error.strerror}") from error
        pairs = (line.partition(" ") for line in lines)
        return [Settlement(name, Outcome(outcome)) for name, _, outcome in pairs]

    def attach(self, regions: Buffers) -> None:
        """Nothing: any memory can be read into."""

    def _owner_folder(self, address: str) -> Path:
        """The owner's folder. Raises KVRefusedError when it is not on this host."""
        host, _, owner = address.rpartition("/")
        here = files_identity(self._directory)
        if host != here:
            raise KVRefusedError(
                f"the KV is in shared memory of another host or container ({host}; this one is {here}): "
                "transfer.transport shm reaches one host; say nixl or nccl in the spec"
            )
        return self._directory / checked(owner)


class ShmReader:
    """An open segment (`kvtransfer.transport.KVReader`)."""

    def __init__(self, fd: int, header: KVHeader, generation: bytes, owner: Path, mappings: Mappings) -> None:
        self._fd = fd
        self._header = header
        self._generation = generation
        self._owner = owner
        self._mappings = mappings

    @property
    def header(self) -> KVHeader:
        return self._header

    def wait(self, num_blocks: int, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while (ready := self._ready()) < num_blocks:
            if time.monotonic() > deadline or not is_alive(self._owner):
                raise OwnerLostError(
                    f"{ready} of {self._header.num_blocks} blocks came, and then no more: "
                    "the prefill replica died or stalls"
                )
            time.sleep(POLL_S)
        return ready

    def read(self, first_block: int, layers: Sequence[Buffers]) -> None:
        num_blocks = self._header.check_blocks(first_block, layers)
        mapping = self._mapping(first_block + num_blocks)
        for layer, into in enumerate(layers):
            offset = HEADER_PAGE + self._header.offset(layer, first_block)
            if mapping is not None:
                mapping.copy(offset, into)
                continue
            for batch in batches(into):
                offset += self._read(batch, offset)
        self._ready()

    def _mapping(self, end_block: int) -> Mapping | None:
        """The segment's, if it is large. Raises TransportError when it is too short for what is wanted."""
        if self._header.num_bytes < MAPPED_BYTES:
            return None
        try:
            mapping = self._mappings.of(self._fd)
        except OSError as error:
            raise TransportError(f"cannot map the segment: {error.strerror}") from error
        last_layer = max(0, self._header.num_layers - 1)
        if mapping.size < HEADER_PAGE + self._header.offset(last_layer, end_block):
            raise TransportError(f"segment is short: it has {mapping.size} bytes")
        return mapping

    def _read(self, views: list[memoryview], offset: int) -> int:
        wanted = sum(view.nbytes for view in views)
        try:
            read = os.preadv(self._fd, views, offset)
        except OSError as error:
            raise TransportError(f"cannot read the segment: {error.strerror}") from error
        if read != wanted:
            raise TransportError(f"segment is short: {wanted} bytes wanted at {offset}")
        return wanted

    def _ready(self) -> int:
        """Blocks that are ready. Raises TicketExpiredError when the segment holds other KV by now."""
        state = os.pread(self._fd, STATE.size, STATE_AT)
        if len(state) != STATE.size or state[:16] != self._generation:
            raise TicketExpiredError("the segment was reused: the ticket's lease was over")
        ready: int = STATE.unpack(state)[1]
        return ready

    def close(self) -> None:
        os.close(self._fd)


def files_identity(directory: Path) -> str:
    """Equal for two processes when they see the same files: the boot of the host, and the tmpfs.

    Raises TransportError.
    """
    try:
        return f"{host_identity()}-{directory.stat().st_dev}"
    except OSError as error:
        raise TransportError(f"transfer.directory {directory}: {error.strerror}") from error


def ticket_path(directory: Path, name: str) -> Path:
    return directory / (checked(name) + TICKET)


def set_lease(fd: int, lease_s: float) -> None:
    """A segment's access time is the end of its lease, by the writer's own measure: no write changes it.

    Clusters with other leases may share the directory; each sweeps only what is over. A lease is never
    shortened: another ticket of the same segment may count on it.
    """
    now = time.time()
    os.utime(fd, (max(now + lease_s, os.fstat(fd).st_atime), now))


def sweep_tickets(directory: Path) -> int:
    """Remove the tickets whose lease is over; returns how many."""
    try:
        tickets = [entry for entry in os.scandir(directory) if entry.name.endswith(TICKET)]
    except OSError as error:
        raise TransportError(f"cannot sweep {directory}: {error.strerror}") from error
    swept = 0
    for entry in tickets:
        try:
            if entry.stat().st_atime < time.time():
                os.unlink(entry.path)
                swept += 1
        except OSError:
            continue  # somebody else released it between the two calls
    return swept


def batches(buffers: Buffers) -> Iterator[list[memoryview]]:
    """At most IOV_MAX views a system call."""
    for start in range(0, len(buffers), IOV_MAX):
        yield list(buffers[start : start + IOV_MAX])


def _journal(owner: Path, name: str, outcome: Outcome) -> None:
    """Tell the owner; one that is gone needs no news, and on a full tmpfs there is room for none."""
    try:
        with open(owner / SETTLED, "r+") as journal:
            fcntl.flock(journal, fcntl.LOCK_EX)
            journal.seek(0, os.SEEK_END)
            journal.write(f"{name} {outcome}\n")
    except OSError:
        return
