"""What the pipeline asks of whoever lets requests in, and of whoever keeps the books."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

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
    ) -> AbstractAsyncContextManager[Slot]:
        """Waits for a place. Raises OverloadedError when none comes free in time."""

    def expected_tokens(self, model: str, max_tokens: int) -> int:
        """Output tokens that a request of the model is likely to take."""


class Book(Protocol):
    """Where requests are accounted for (`router.accounts`)."""

    def ended(self, model: str, token_ids: tuple[int, ...], trace: Trace, outcome: Outcome) -> None:
        """Called once per request."""
