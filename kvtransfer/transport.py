"""The transport interface: a prefill engine saves a prompt's KV under a name, decode engines read it.

A transport moves whole KV blocks as opaque bytes. It does not know what a token is. It has two halves:

    KVStore    in the worker of a prefill engine: takes KV in, block by block while it is computed
    KVClient   anywhere: reads KV, gives a second name to it, releases names, sweeps

Names are ticket ids. An address says where a name's KV is, in the transport's own terms; it travels in
the ticket. Implementations are lines in `kvtransfer.registry`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Protocol

from heliostat.errors import TransportError

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

    @property
    def block_bytes(self) -> int:
        """Bytes of one block in one layer; a header without blocks has none."""
        return self.num_bytes // max(1, self.num_layers * self.num_blocks)

    def offset(self, layer: int, block: int) -> int:
        """Where a block of a layer begins: KV is kept layer after layer."""
        return (layer * self.num_blocks + block) * self.block_bytes

    def check_blocks(self, first_block: int, layers: Sequence[Buffers]) -> int:
        """How many blocks `layers` holds; raises TransportError when they are not this KV's."""
        sizes = {sum(view.nbytes for view in buffers) for buffers in layers}
        if len(layers) != self.num_layers or len(sizes) != 1:
            raise TransportError(
                f"{len(layers)} layers of {sorted(sizes)} bytes for {self.num_layers} layers"
            )
        num_blocks, rest = divmod(sizes.pop(), max(1, self.block_bytes))
        if rest or first_block + num_blocks > self.num_blocks:
            raise TransportError(
                f"there are {self.num_blocks} blocks of {self.block_bytes} bytes; blocks {first_block} to "
                f"{first_block + num_blocks} and {rest} bytes were named"
            )
        return num_blocks

    def encode(self) -> bytes:
        """As JSON, so that an operator can read it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, raw: bytes) -> "KVHeader":
        """The header in `raw`. Raises TransportError when it is not one."""
        try:
            return cls(**json.loads(raw))
        except (ValueError, TypeError) as error:
            raise TransportError(f"not a KV header: {raw[:60]!r}") from error


class Outcome(StrEnum):
    """How a ticket ended: its KV was read, it was given up, or nobody came before its lease ended."""

    ADMITTED = "admitted"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Settlement:
    """A ticket's end, as its owner learns it."""

    name: str
    outcome: Outcome


class KVWriter(Protocol):
    """KV on its way into a store. Every method but `abort` may raise TransportError."""

    def write(self, first_block: int, layers: Sequence[Buffers]) -> None:
        """The next blocks of every layer; readers may have them from now on."""

    def commit(self) -> None:
        """All blocks are written: the KV may be shared from now on."""

    def abort(self) -> None:
        """Drop the name and the KV."""


class KVStore(Protocol):
    """The owner's half, in the worker of a prefill engine."""

    def open(self, name: str, header: KVHeader) -> KVWriter:
        """Make room for KV under `name`. Raises NoSpaceError."""

    def release(self, name: str) -> None:
        """Drop a name of ours, if it is still there."""

    def close(self) -> None:
        """Drop everything; names of KV that a transport can serve without us stay."""


class KVReader(Protocol):
    """Open KV. Every method but `close` may raise TransportError."""

    @property
    def header(self) -> KVHeader:
        """What was put."""

    def wait(self, num_blocks: int, timeout_s: float) -> int:
        """Until that many blocks are there; returns how many are. Raises OwnerLostError when none come."""

    def read(self, first_block: int, layers: Sequence[Buffers]) -> None:
        """Fill `layers` with the blocks from `first_block` on, one entry for each layer."""

    def close(self) -> None:
        """Let go of the KV."""


class KVClient(Protocol):
    """Everybody's half. Every method may raise TransportError."""

    def address(self) -> str:
        """Where readers find what the owner's store holds."""

    def get(self, name: str, address: str) -> KVReader:
        """Open the KV under `name`. Raises TicketExpiredError, KVRefusedError or OwnerLostError."""

    def release(self, name: str, address: str, outcome: Outcome) -> bool:
        """Drop the name; its KV may be reused when no name is left. True if there was one."""

    def share(self, prefix_digest: str, name: str) -> KVHeader | None:
        """Give another name to KV that the owner's store still holds; None when it does not."""

    def sweep(self) -> int:
        """Release every name whose lease is over, and what dead owners left; returns how many names."""

    def settled(self) -> list[Settlement]:
        """How the owner's tickets ended, since the last call."""

    def attach(self, regions: Buffers) -> None:
        """Memory that reads will go to, for transports that want to know before."""
