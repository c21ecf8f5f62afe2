"""KV between processes of one host: one file per ticket in a tmpfs directory.

Segment: a page with the length-prefixed header, then the blocks, layer-major:

    | header page | layer 0: block 0 … block n-1 | layer 1: block 0 … | … |

`pwritev`/`preadv` copy between the engine's KV memory and the file once, without mapping it: a full
tmpfs is then an ENOSPC, not a SIGBUS, and a truncated file a short read. The open descriptor of a
reader is its lease on the bytes; the name may go before. `multiprocessing.shared_memory` is not used
because its resource tracker unlinks segments of other processes.
"""

import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from heliostat.errors import TicketExpiredError, TransportError
from kvtransfer.transport import Buffers, KVHeader

HEADER_PAGE = 4096
IOV_MAX = 512
_SUFFIX = ".kv"
_LENGTH = struct.Struct("<I")


class ShmTransport:
    """`kvtransfer.transport.Transport` over files in `directory`, which must be on a tmpfs to be fast."""

    def __init__(self, directory: str, lease_s: float) -> None:
        self._directory = Path(directory)
        self._lease_s = lease_s
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, name: str) -> Path:
        # Names become file names, and tickets travel: nothing but hex may pass.
        if not name or any(c not in "0123456789abcdef" for c in name):
            raise TransportError(f"ticket id {name!r} is not hexadecimal")
        return self._directory / (name + _SUFFIX)

    def put(self, name: str, header: KVHeader, layers: Sequence[Buffers]) -> None:
        path = self._path(name)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        encoded = header.encode()
        page = _LENGTH.pack(len(encoded)) + encoded
        if len(page) > HEADER_PAGE:
            raise TransportError(f"a KV header of {len(encoded)} bytes does not fit its page")
        try:
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, page.ljust(HEADER_PAGE, b"\0"), 0)
                offset = HEADER_PAGE
                for buffers in layers:
                    offset = _write_all(fd, buffers, offset)
                # The file's time is the end of its lease: clusters with other leases may share the
                # directory, and each sweeps only what is over by the writer's own measure.
                end = time.time() + self._lease_s
                os.utime(fd, (end, end))
            finally:
                os.close(fd)
            draft.rename(path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise TransportError(f"cannot put KV into {self._directory}: {error.strerror}") from error

    def get(self, name: str) -> "ShmReader":
        path = self._path(name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise TicketExpiredError(f"the KV of ticket {name} is gone from {self._directory}") from error
        except OSError as error:
            raise TransportError(f"cannot open the KV of ticket {name}: {error.strerror}") from error
        try:
            page = os.pread(fd, HEADER_PAGE, 0)
            (length,) = _LENGTH.unpack(page[: _LENGTH.size])
            return ShmReader(fd, KVHeader.decode(page[_LENGTH.size : _LENGTH.size + length]))
        except (struct.error, TransportError) as error:
            os.close(fd)
            raise TransportError(f"the KV of ticket {name} is damaged") from error

    def release(self, name: str) -> bool:
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise TransportError(f"cannot release ticket {name}: {error.strerror}") from error
        return True

    def sweep(self) -> int:
        now = time.time()
        swept = 0
        for entry in os.scandir(self._directory):
            if not entry.name.endswith((_SUFFIX, ".tmp")):
                continue
            try:
                # A draft without a lease yet is of a writer that died, if it is as old as ours.
                lease = self._lease_s if entry.name.endswith(".tmp") else 0.0
                if entry.stat().st_mtime + lease < now:
                    os.unlink(entry.path)
                    swept += 1
            except FileNotFoundError:
                continue  # somebody else released it between the two calls
        return swept


class ShmReader:
    """An open segment (`kvtransfer.transport.KVReader`)."""

    def __init__(self, fd: int, header: KVHeader) -> None:
        self._fd = fd
        self._header = header
        self._block_bytes = header.num_bytes // max(1, header.num_layers * header.num_blocks)

    @property
    def header(self) -> KVHeader:
        return self._header

    def read(self, layer: int, first_block: int, into: Buffers) -> None:
        offset = HEADER_PAGE + (layer * self._header.num_blocks + first_block) * self._block_bytes
        layer_end = HEADER_PAGE + (layer + 1) * self._header.num_blocks * self._block_bytes
        for batch in _batches(into):
            wanted = sum(view.nbytes for view in batch)
            if offset + wanted > layer_end:
                raise TransportError(f"layer {layer} has {self._header.num_blocks} blocks; more were wanted")
            try:
                read = os.preadv(self._fd, batch, offset)
            except OSError as error:
                raise TransportError(f"cannot read the segment: {error.strerror}") from error
            if read != wanted:
                raise TransportError(f"segment is short: {wanted} bytes wanted at {offset}")
            offset += wanted

    def close(self) -> None:
        os.close(self._fd)


def _batches(buffers: Buffers) -> Iterator[list[memoryview]]:
    """At most IOV_MAX views a system call."""
    for start in range(0, len(buffers), IOV_MAX):
        yield list(buffers[start : start + IOV_MAX])


def _write_all(fd: int, buffers: Buffers, offset: int) -> int:
    """Write the views one after the other; returns the offset behind them. Short writes go on."""
    for batch in _batches(buffers):
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
