"""The worker's half of a handoff: copies between KV memory and a transport, and never raises.

An exception out of a connector's worker method ends the whole engine (seen in vLLM 0.32), so a failed
copy becomes a `CopyRecord` with a reason, and its target blocks are reported as invalid.
"""

import time
from collections.abc import Iterable

from heliostat.errors import TransportError
from kvtransfer.handoff import BlockCopy, CopyRecord
from kvtransfer.memory import BlockMemory
from kvtransfer.transport import KVHeader, KVReader, Transport


class KVCopier:
    """Runs block copies for one engine worker.

    A reader stays open from a request's first load until `forget`: a preempted request loads its
    prompt again (rule 5) although the name behind its ticket was released long before.
    """

    def __init__(self, transport: Transport, memory: BlockMemory) -> None:
        self._transport = transport
        self._memory = memory
        self._readers: dict[str, KVReader] = {}
        self._records: list[CopyRecord] = []
        self._invalid_blocks: set[int] = set()

    def save(self, copy: BlockCopy) -> None:
        """Publish the prompt's blocks under the ticket."""
        start = time.perf_counter()
        layers = [self._memory.views(layer, copy.block_ids) for layer in range(self._memory.num_layers)]
        num_bytes = self._memory.bytes_per_block * len(copy.block_ids)
        header = KVHeader(
            domain=copy.params.domain,
            prefix_digest=copy.params.prefix_digest,
            layout=self._memory.layout,
            num_tokens=copy.params.num_tokens,
            num_blocks=len(copy.block_ids),
            num_layers=self._memory.num_layers,
            num_bytes=num_bytes,
        )
        try:
            self._transport.put(copy.params.ticket_id, header, layers)
        except TransportError as error:
            self._record(copy, 0, start, str(error))
        else:
            self._record(copy, num_bytes, start, None)

    def load(self, copy: BlockCopy) -> None:
        """Fill the request's blocks from the ticket; on failure mark exactly these blocks invalid."""
        start = time.perf_counter()
        try:
            reader = self._reader(copy)
            for layer in range(self._memory.num_layers):
                reader.read(layer, copy.first_block, self._memory.views(layer, copy.block_ids))
        except TransportError as error:
            self._invalid_blocks.update(copy.block_ids)
            self._record(copy, 0, start, str(error))
        else:
            self._record(copy, self._memory.bytes_per_block * len(copy.block_ids), start, None)

    def refuse(self, copy: BlockCopy, reason: str) -> None:
        """Fail a request whose prompt the engine is about to compute by itself (rule 5)."""
        self._invalid_blocks.update(copy.block_ids)
        self._record(copy, 0, time.perf_counter(), reason)

    def forget(self, request_ids: Iterable[str]) -> None:
        """These requests are over: let go of their KV."""
        for request_id in request_ids:
            if reader := self._readers.pop(request_id, None):
                reader.close()

    def take_records(self) -> list[CopyRecord]:
        """What happened since the last call."""
        records, self._records = self._records, []
        return records

    def take_invalid_blocks(self) -> set[int]:
        """Blocks that no load filled, since the last call."""
        blocks, self._invalid_blocks = self._invalid_blocks, set()
        return blocks

    def _reader(self, copy: BlockCopy) -> KVReader:
        if reader := self._readers.get(copy.request_id):
            return reader
        reader = self._transport.get(copy.params.ticket_id)
        try:
            _check(reader.header, copy, self._memory.layout)
        except TransportError:
            reader.close()
            raise
        self._readers[copy.request_id] = reader
        return reader

    def _record(self, copy: BlockCopy, num_bytes: int, start: float, failure: str | None) -> None:
        ms = (time.perf_counter() - start) * 1e3
        self._records.append(CopyRecord(copy.params.ticket_id, num_bytes, ms, failure))


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
            raise TransportError(f"the KV of ticket {wanted.ticket_id} has {field} {found}, not {expected}")
