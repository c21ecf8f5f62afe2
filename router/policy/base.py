"""The policy interface. No Ray, no clock, no I/O: the same code runs in production and in a simulator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from heliostat.wire import Load


@dataclass(frozen=True, slots=True)
class Candidate:
    """One replica as this router sees it.

    `load` is its own last report (None before the first); `in_flight` and `in_flight_tokens` are what
    this router sent there and has not seen end, which no report can lag behind. `cached_tokens` of the
    request's prompt need not be computed there.
    """

    replica: str
    load: Load | None
    in_flight: int
    in_flight_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """A ranked replica: lower cost is better, and `reason` says what the cost was made of."""

    replica: str
    cost: float
    reason: str


class Policy(Protocol):
    """Ranks the replicas of one pool for one request, best first."""

    def rank(self, candidates: Sequence[Candidate]) -> list[Choice]:
        """Every candidate once; equal costs keep the order of `candidates`."""
