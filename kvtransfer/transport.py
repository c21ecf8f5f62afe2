"""The transport interface: put the KV of one prompt under a name, get it elsewhere, release it.

A transport moves whole KV blocks as opaque bytes, layer by layer. It does not know what a token is.
Implementations: `kvtransfer.shm` (one host). A new one is a new file and a line in `create_transport`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from heliostat.errors import TransportError
from heliostat.spec import Transfer

Buffers = Sequence[memoryview]
"""Writable or readable memory of consecutive KV blocks; neighbouring blocks share one view."""


@dataclass(frozen=True, slots=True)
class KVHeader:
    """What lies under a name, so that a reader can refuse it.

    `layout` is the engine's own description of a block (dtype, shape, packing); `num_tokens` is N-1;
    `num_bytes` counts all layers.
    """

    domain: str
    prefix_digest: str
    layout: str
    num_tokens: int
    num_blocks: int
    num_layers: int
    num_bytes: int

    def encode(self) -> bytes:
        """As JSON, so that an operator can read a segment's first bytes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, raw: bytes) -> "KVHeader":
        """The header in `raw`. Raises TransportError when it is not one."""
        try:
            return cls(**json.loads(raw))
        except (ValueError, TypeError) as error:
            raise TransportError(f"not a KV header: {raw[:60]!r}") from error


class KVReader(Protocol):
    """Open KV: it stays readable until `close`, also when its name is released meanwhile."""

    @property
    def header(self) -> KVHeader:
        """What was put."""

    def read(self, layer: int, first_block: int, into: Buffers) -> None:
        """Fill `into` with the layer's blocks from `first_block` on. Raises TransportError when short."""

    def close(self) -> None:
        """Let go of the KV."""


class Transport(Protocol):
    """Moves KV between replicas. Every method may raise TransportError."""

    def put(self, name: str, header: KVHeader, layers: Sequence[Buffers]) -> None:
        """Publish the KV under `name`, whole or not at all; an older KV of that name is replaced."""

    def get(self, name: str) -> KVReader:
        """Open the KV under `name`. Raises TicketExpiredError when there is none."""

    def release(self, name: str) -> bool:
        """Drop the name; the bytes go when the last reader closes. True if there was something."""

    def sweep(self) -> int:
        """Release everything whose lease is over; returns how many names."""


BUILT_IN = ("shm",)
"""Transports that `create_transport` knows; the spec's words for others are reserved."""


def check_transport(transfer: Transfer) -> None:
    """Raise TransportError for a transport that is not built in."""
    if transfer.transport not in BUILT_IN:
        raise TransportError(
            f"transfer.transport: {transfer.transport} is not built in yet; use {' or '.join(BUILT_IN)}"
        )


def create_transport(transfer: Transfer) -> Transport:
    """The transport that the spec names. Raises TransportError for one that is not built in."""
    from kvtransfer.shm import ShmTransport

    check_transport(transfer)
    return ShmTransport(transfer.directory, transfer.lease_s)
