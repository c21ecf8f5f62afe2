"""One handoff as the engine sees it: the parameters on a request, and the copies they turn into."""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

PARAMS_KEY = "heliostat"
"""Our key inside vLLM's `kv_transfer_params`; vLLM gives meaning to `do_remote_*`, so ours is apart."""


class Direction(StrEnum):
    """Whether a request's prompt KV leaves this engine or enters it."""

    SAVE = "save"
    LOAD = "load"


@dataclass(frozen=True, slots=True)
class HandoffParams:
    """Rides on one request into the engine; plain strings and numbers, since msgpack carries it.

    `address` and `num_bytes` are known to a load only. `streamed`: the KV is still being computed.
    """

    direction: Direction
    ticket_id: str
    domain: str
    prefix_digest: str
    num_tokens: int
    address: str = ""
    num_bytes: int = 0
    streamed: bool = False

    def encode(self) -> dict[str, dict[str, str | int]]:
        """As vLLM's `kv_transfer_params`."""
        return {PARAMS_KEY: {**asdict(self), "direction": self.direction.value}}

    @classmethod
    def decode(cls, kv_transfer_params: Mapping[str, object] | None) -> "HandoffParams | None":
        """The parameters on a request, or None for a request without a handoff."""
        raw = (kv_transfer_params or {}).get(PARAMS_KEY)
        if not isinstance(raw, dict):
            return None
        return cls(**{**raw, "direction": Direction(raw["direction"])})


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Copy these KV blocks out of, or into, the engine; `first_block` counts within the prompt.

    `num_blocks` is how many the whole prompt has. A save comes in one part per chunk of the prefill;
    `last` marks the part that completes it, `announced` the one after which only the last chunk is left.
    `cached_tokens` of the prompt were in the engine's prefix cache when it began.
    """

    request_id: str
    params: HandoffParams
    first_block: int
    block_ids: tuple[int, ...]
    num_blocks: int
    last: bool = True
    announced: bool = False
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Announcement:
    """A prompt's last chunk is about to be computed: its KV can be read as far as it has come."""

    ticket_id: str
    num_blocks: int
    num_bytes: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """What one handoff cost on one side, or why it failed.

    `ms` is time spent copying; `hidden_ms` the part of it during which the prefill was still computing.
    `kind` is the class of a failure (`TransportError.kind`), empty for a success.
    """

    ticket_id: str
    domain: str
    direction: Direction
    num_blocks: int
    num_bytes: int
    ms: float
    hidden_ms: float
    kind: str = ""
    failure: str | None = None


def digest_tokens(token_ids: Sequence[int], domain: str) -> str:
    """Commits to x_1 … x_{N-1} and to who wrote their KV; 128 bits of BLAKE2b over little-endian 32-bit ids.

    One replica may hold the KV of one prompt several times: as its base wrote it, and as adapters did.
    """
    key = hashlib.blake2b(domain.encode(), digest_size=16).digest()
    return hashlib.blake2b(array("I", token_ids).tobytes(), digest_size=16, key=key).hexdigest()
