"""The prefill worker's copies: each chunk's blocks leave while the next chunk is computed.

An exception out of a connector's worker method ends the whole engine (seen in vLLM 0.32), so a failed
copy becomes a `CopyRecord` with a reason.
"""

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from heliostat.errors import TransportError
from kvtransfer.handoff import Announcement, BlockCopy, CopyRecord, Direction
from kvtransfer.memory import BlockMemory
from kvtransfer.transport import KVHeader, KVStore, KVWriter


@dataclass(slots=True)
class _Save:
    """One request's save in progress: copies that were begun, and what they cost so far."""

    ticket_id: str
    writer: KVWriter | None = None
    pending: list[Future[None]] = field(default_factory=list)
    num_bytes: int = 0
    ms: float = 0.0
    error: TransportError | None = None


class Saver:
    """Copies in the order of the calls, on one thread that lets go of the interpreter lock.

    A part that is not the last may be copied while the next step runs: its blocks belong to a request
    that goes on, so nobody writes them. When that changes (`settle`, `drop`), copies are waited for.
    """

    def __init__(self, store: KVStore, memory: BlockMemory) -> None:
        self._store = store
        self._memory = memory
        self._saves: dict[str, _Save] = {}
        self._records: list[CopyRecord] = []
        self._announcements: list[Announcement] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kv-save")

    def save(self, copy: BlockCopy) -> None:
        """Take in a part of the prompt's KV; the last part is done, and the KV published, on return."""
        save = self._saves.setdefault(copy.request_id, _Save(copy.params.ticket_id))
        save.pending.append(self._thread.submit(self._write, save, copy))
        if copy.announced:
            self._announce(save, copy)
        if not copy.last:
            return
        start = time.perf_counter()
        self._settle(save)
        waited_ms = (time.perf_counter() - start) * 1e3
        del self._saves[copy.request_id]
        self._records.append(
            CopyRecord(
                ticket_id=copy.params.ticket_id,
                domain=copy.params.domain,
                direction=Direction.SAVE,
                num_blocks=copy.num_blocks,
                num_bytes=0 if save.error else save.num_bytes,
                ms=save.ms,
                hidden_ms=max(0.0, save.ms - waited_ms),
                kind=save.error.kind if save.error else "",
                failure=str(save.error) if save.error else None,
            )
        )

    def settle(self, request_ids: Iterable[str]) -> None:
        """These requests lose their blocks: finish what is being copied from them."""
        for request_id in request_ids:
            if save := self._saves.get(request_id):
                self._settle(save)

    def drop(self, request_ids: Iterable[str]) -> None:
        """These requests are over: what they did not complete goes."""
        for request_id in request_ids:
            if save := self._saves.pop(request_id, None):
                self._settle(save)
                if save.writer is not None:
                    self._thread.submit(save.writer.abort).result()

    def release(self, ticket_id: str) -> None:
        """Nobody will come for this ticket."""
        try:
            self._thread.submit(self._store.release, ticket_id).result()
        except TransportError:
            return  # its lease will end

    def take_announcements(self) -> list[Announcement]:
        """Prompts that can be read from now on, since the last call."""
        announcements, self._announcements = self._announcements, []
        return announcements

    def take_records(self) -> list[CopyRecord]:
        """What happened since the last call."""
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        self._thread.shutdown()
        self._store.close()

    def _announce(self, save: _Save, copy: BlockCopy) -> None:
        save.pending[0].result()  # the first part opens the ticket; without it there is nothing to read
        if save.error is None:
            num_bytes = self._memory.bytes_per_block * copy.num_blocks
            self._announcements.append(
                Announcement(save.ticket_id, copy.num_blocks, num_bytes, copy.cached_tokens)
            )

    def _settle(self, save: _Save) -> None:
        for copy in save.pending:
            copy.result()
        save.pending.clear()

    def _write(self, save: _Save, copy: BlockCopy) -> None:
        if save.error is not None:
            return
        start = time.perf_counter()
        try:
            if save.writer is None:
                save.writer = self._store.open(save.ticket_id, self._header(copy))
            save.writer.write(copy.first_block, self._memory.blocks(copy.block_ids))
            if copy.last:
                save.writer.commit()
        except TransportError as error:
            save.error = error
            if save.writer is not None:
                save.writer.abort()
                save.writer = None
        save.num_bytes += self._memory.bytes_per_block * len(copy.block_ids)
        save.ms += (time.perf_counter() - start) * 1e3

    def _header(self, copy: BlockCopy) -> KVHeader:
        return KVHeader(
            domain=copy.params.domain,
            prefix_digest=copy.params.prefix_digest,
            layout=self._memory.layout,
            num_tokens=copy.params.num_tokens,
            num_blocks=copy.num_blocks,
            num_layers=self._memory.num_layers,
            num_bytes=self._memory.bytes_per_block * copy.num_blocks,
        )
