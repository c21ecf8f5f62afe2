"""The two pools behind a model's name, as the pipeline sees them."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from heliostat.wire import Adapter, DecodeRequest, PrefillRequest, PrefillResult, Ticket, TokenFrame
from router.match import Pairing


class PrefillPool(Protocol):
    """A prefill pool as the pipeline sees it; each call goes to the replica that its policy chooses."""

    async def prefill(self, request: PrefillRequest) -> PrefillResult:
        """Raises PrefillFailedError or PoolUnavailableError."""

    def prefill_early(self, request: PrefillRequest) -> AsyncGenerator[PrefillResult, None]:
        """The same, with a streamed ticket before the result for a long prompt. Closing it aborts the leg."""

    async def release(self, ticket: Ticket) -> None:
        """Drop KV that nobody will fetch."""


class DecodePool(Protocol):
    """A decode pool as the pipeline sees it."""

    def held_tokens(self, token_ids: tuple[int, ...]) -> int:
        """Tokens of a prompt, from its first on, whose KV a replica of the pool has kept, to the block."""

    def decode(self, request: DecodeRequest) -> AsyncGenerator[TokenFrame, None]:
        """Raises HandoffFailedError or PoolUnavailableError. Closing it aborts the leg."""


@dataclass(frozen=True, slots=True)
class Route:
    """The two pools behind a model's name."""

    prefill: PrefillPool
    decode: DecodePool
    whole_prompt: bool = False
    """Whether prefills get x_N, too (`heliostat.spec.Connector`)."""
    prefill_adapter: Adapter | None = None
    decode_adapter: Adapter | None = None
    local_prefill_tokens: int | None = None
    """In an ICaRus pool, what a decode replica may compute of a prompt by itself; None elsewhere (rule 5)."""
    pairing: Pairing | None = None
    """Which versions of the two may meet; None: whatever the pools run belongs together."""
    untrained_pair: bool = False
