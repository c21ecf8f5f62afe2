"""What the pipeline asks of whoever lets requests in, of the pools, and of whoever keeps the books."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from heliostat.wire import DecodeRequest, Load, PrefillRequest, PrefillResult, Ticket, TokenFrame
from router.accounts import Outcome
from router.trace import Trace


class Slot(Protocol):
    """A request's place in its decode pool."""

    def served(self, tokens: int) -> None:
        """So many output tokens went to the client."""


class Admission(Protocol):
    """Who may enter the pools, and when (`router.admission`)."""

    def slot(
        self,
        model: str,
        prompt_tokens: int,
        max_tokens: int,
        priority: int = 0,
        deadline_s: float | None = None,
        expected_tokens: int = 0,
    ) -> AbstractAsyncContextManager[Slot]:
        """Waits for a place. Raises OverloadedError when none comes free in time."""

    def expected_tokens(self, model: str, max_tokens: int, known: int = 0) -> int:
        """Output tokens that a request of the model is likely to take; `known`: its client's guess, or 0."""


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


class Book(Protocol):
    """Where requests are accounted for (`router.accounts`)."""

    def prefilled(self, model: str, trace: Trace, load: Load) -> None:
        """Called once per request, when its prompt's KV is there; notes in the trace what that saved."""

    def ended(self, model: str, token_ids: tuple[int, ...], trace: Trace, outcome: Outcome) -> None:
        """Called once per request."""
