"""The decode worker's copies: a ticket's KV comes in, at once or while the batch goes on decoding.

An exception out of a connector's worker method ends the whole engine (seen in vLLM 0.32), so a failed
copy becomes a `CopyRecord` with a reason, and its target blocks are reported as invalid.
"""

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from heliostat.errors import KVRefusedError, TransportError
from kvtransfer.handoff import BlockCopy, CopyRecord, Direction
from kvtransfer.memory import BlockMemory
from kvtransfer.transport import KVClient, KVHeader

THREADS = 4
STALL_S = 60.0
"""The longest that a prefill may take for one chunk; that its replica died is noticed at once."""


class Loader:
    """Runs loads for one engine worker.

    When a request is preempted, its prompt's blocks are stashed before they are given away, and its next
    load comes from the stash (rule 5): the ticket may be over by then, and its owner dead.
    """

    def __init__(self, client: KVClient, memory: BlockMemory) -> None:
        self._client = client
        self._memory = memory
        self._stash: dict[str, list[bytes]] = {}
        self._changed = threading.Condition()
        self._loading = 0
        self._done: list[tuple[str, CopyRecord, set[int]]] = []
        self._records: list[CopyRecord] = []
        self._invalid_blocks: set[int] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kv-load")
        client.attach(memory.regions)

    def load(self, copy: BlockCopy) -> None:
        """Fill the request's blocks from its ticket; on failure mark exactly these blocks invalid."""
        record, invalid = self._load(copy)
        self._records.append(record)
        self._invalid_blocks |= invalid

    def load_later(self, copy: BlockCopy) -> None:
        """The same on a thread; `take_loaded` tells when it is over."""
        self._loading += 1
        self._threads.submit(self._load_later, copy)

    def refuse(self, copy: BlockCopy, reason: str) -> None:
        """Fail a request whose prompt the engine is about to compute by itself (rule 5)."""
        self._invalid_blocks.update(copy.block_ids)
        self._records.append(_record(copy, 0, 0.0, 0.0, KVRefusedError(reason)))

    def stash(self, copy: BlockCopy) -> None:
        """The request's blocks are about to be given away: keep what they hold."""
        self._stash[copy.request_id] = [b"".join(views) for views in self._memory.blocks(copy.block_ids)]

    def forget(self, request_ids: Iterable[str]) -> None:
        """These requests are over."""
        for request_id in request_ids:
            self._stash.pop(request_id, None)

    def take_loaded(self, wait_s: float) -> set[str]:
        """Requests whose `load_later` is over, well or not; waits that long for the first, if any is due."""
        with self._changed:
            if self._loading and not self._done and wait_s:
                self._changed.wait(wait_s)
            done, self._done = self._done, []
            self._loading -= len(done)
        for _, record, invalid in done:
            self._records.append(record)
            self._invalid_blocks |= invalid
        return {request_id for request_id, _, _ in done}

    def take_records(self) -> list[CopyRecord]:
        """What happened since the last call."""
        records, self._records = self._records, []
        return records

    def take_invalid_blocks(self) -> set[int]:
        """Blocks that no load filled, since the last call."""
        blocks, self._invalid_blocks = self._invalid_blocks, set()
        return blocks

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _load_later(self, copy: BlockCopy) -> None:
        record, invalid = self._load(copy)
        with self._changed:
            self._done.append((copy.request_id, record, invalid))
            self._changed.notify_all()

    def _load(self, copy: BlockCopy) -> tuple[CopyRecord, set[int]]:
        num_bytes = self._memory.bytes_per_block * len(copy.block_ids)
        try:
            if copy.request_id in self._stash:
                ms, hidden_ms = self._restore(copy), 0.0
            else:
                ms, hidden_ms = self._read(copy)
        except TransportError as error:
            return _record(copy, 0, 0.0, 0.0, error), set(copy.block_ids)
        return _record(copy, num_bytes, ms, hidden_ms, None), set()

    def _read(self, copy: BlockCopy) -> tuple[float, float]:
        """Milliseconds of reading in all, and of these before the prefill was done."""
        ms = hidden_ms = 0.0
        start = time.perf_counter()
        reader = self._client.get(copy.params.ticket_id, copy.params.address)
        try:
            _check(reader.header, copy, self._memory.layout)
            done, end = copy.first_block, copy.first_block + len(copy.block_ids)
            while done < end:
                ms += (time.perf_counter() - start) * 1e3
                ready = min(end, reader.wait(done + 1, STALL_S))
                start = time.perf_counter()
                part = copy.block_ids[done - copy.first_block : ready - copy.first_block]
                reader.read(done, self._memory.blocks(part))
                if ready < copy.num_blocks:
                    hidden_ms += (time.perf_counter() - start) * 1e3
                done = ready
            ms += (time.perf_counter() - start) * 1e3
        finally:
            reader.close()
        return ms, hidden_ms

    def _restore(self, copy: BlockCopy) -> float:
        start = time.perf_counter()
        block_bytes = self._memory.bytes_per_block // self._memory.num_layers
        for saved, views in zip(
            self._stash.pop(copy.request_id), self._memory.blocks(copy.block_ids), strict=True
        ):
            at = copy.first_block * block_bytes
            for view in views:
                view[:] = saved[at : at + view.nbytes]
                at += view.nbytes
        return (time.perf_counter() - start) * 1e3


def _check(header: KVHeader, copy: BlockCopy, layout: str) -> None:
    """Refuse KV of another module, another prompt or another block geometry (rules 3 and 7)."""
    wanted = copy.params
    for field, found, expected in (
        ("domain", header.domain, wanted.domain),
        ("prefix_digest", header.prefix_digest, wanted.prefix_digest),
        ("num_tokens", str(header.num_tokens), str(wanted.num_tokens)),
        ("layout", header.layout, layout),
    ):
        if found != expected:
            raise KVRefusedError(f"the KV of ticket {wanted.ticket_id} has {field} {found}, not {expected}")


def _record(
    copy: BlockCopy, num_bytes: int, ms: float, hidden_ms: float, error: TransportError | None
) -> CopyRecord:
    return CopyRecord(
        ticket_id=copy.params.ticket_id,
        domain=copy.params.domain,
        direction=Direction.LOAD,
        num_blocks=copy.num_blocks,
        num_bytes=num_bytes,
        ms=ms,
        hidden_ms=hidden_ms,
        kind=error.kind if error else "",
        failure=str(error) if error else None,
    )
