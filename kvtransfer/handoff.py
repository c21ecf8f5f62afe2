"""One handoff as the engine sees it: the parameters on a request, and the copies they turn into."""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

PARAMS_KEY = "heliostat"
"""Our key inside vLLM's `kv_transfer_params`; vLLM gives meaning to `do_remote_*`, so ours is apart."""


class Direction(StrEnum):
    """Whether a request's prompt KV leaves this engine or enters it."""

    SAVE = "save"
    LOAD = "load"


@dataclass(frozen=True, slots=True)
class HandoffParams:
    """Rides on one request into the engine; plain strings and numbers, since msgpack carries it."""

    direction: Direction
    ticket_id: str
    domain: str
    prefix_digest: str
    num_tokens: int

    def encode(self) -> dict[str, dict[str, str | int]]:
        """As vLLM's `kv_transfer_params`."""
        return {
            PARAMS_KEY: {
                "direction": self.direction.value,
                "ticket_id": self.ticket_id,
                "domain": self.domain,
                "prefix_digest": self.prefix_digest,
                "num_tokens": self.num_tokens,
            }
        }

    @classmethod
    def decode(cls, kv_transfer_params: Mapping[str, object] | None) -> "HandoffParams | None":
        """The parameters on a request, or None for a request without a handoff."""
        raw = (kv_transfer_params or {}).get(PARAMS_KEY)
        if not isinstance(raw, dict):
            return None
        return cls(
            Direction(raw["direction"]),
            raw["ticket_id"],
            raw["domain"],
            raw["prefix_digest"],
            raw["num_tokens"],
        )


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Copy these KV blocks out of, or into, the engine; `first_block` counts within the prompt."""

    request_id: str
    params: HandoffParams
    first_block: int
    block_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """What one copy did: bytes and milliseconds, or the reason why it failed."""

    ticket_id: str
    num_bytes: int
    ms: float
    failure: str | None


def digest_tokens(token_ids: Sequence[int]) -> str:
    """Commits to x_1 … x_{N-1}; 128 bits of BLAKE2b over little-endian 32-bit ids."""
    return hashlib.blake2b(array("I", token_ids).tobytes(), digest_size=16).hexdigest()
