"""The versions that one request meets: chosen before its prefill, kept once its answer has begun."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from heliostat.errors import HandoffFailedError, PoolUnavailableError, VersionsGoneError
from heliostat.wire import Ticket, Version
from router.pairing import Choice, Pinned


class Pairing(Protocol):
    """Which versions of a model's two modules may meet now (`router.pairing.VersionPairing`)."""

    def writers(self, pinned: Pinned | None, avoid: frozenset[str]) -> Choice:
        """Whom to ask for the prefill."""

    def readers(self, writer: Version | None, pinned: Pinned | None) -> Choice:
        """Whom to ask for the decode of KV that `writer` wrote; None: there is no ticket."""

    def version(self, replica: str) -> Version | None:
        """What a replica runs, if it has said so."""


@dataclass(frozen=True, slots=True)
class VersionWait:
    """How long a request waits until two versions that fit are there, and how often it looks, seconds.

    There are none when one pool is through with its roll and the other one has just begun; or when both are
    through, and no router is there yet that knows the spec which deploys them together: routers start as fast
    as vLLM is imported. Nothing is held meanwhile, so the time is a client's patience.
    """

    at_most_s: float = 60.0
    look_s: float = 0.1


WAIT = VersionWait()


class RequestVersions:
    """One request's. Without a `pairing` every version will do."""

    def __init__(self, pairing: Pairing | None, wait: VersionWait, clock: Callable[[], float]) -> None:
        self._pairing = pairing
        self._wait = wait
        self._clock = clock
        self._pinned: Pinned | None = None

    async def writers(self, avoid: frozenset[str]) -> frozenset[str] | None:
        """Ids of the versions that may prefill; None: any.

        Raises PoolUnavailableError when no two that fit came up in time, and VersionsGoneError when those are
        gone that began the answer.
        """
        if self._pairing is None:
            return None
        until = self._clock() + self._wait.at_most_s
        while (choice := self._pairing.writers(self._pinned, avoid)).problem:
            if self._pinned is not None and not choice.passing:
                raise VersionsGoneError(f"the answer cannot be continued: {choice.problem}")
            if self._clock() >= until:
                raise PoolUnavailableError(
                    f"no prefill and decode replica fit each other now: {choice.problem}"
                )
            await asyncio.sleep(self._wait.look_s)
        return choice.versions

    def readers(self, ticket: Ticket | None) -> frozenset[str] | None:
        """Ids of the versions that may read the ticket's KV; None: any.

        Raises HandoffFailedError when there is none any more: the prompt is to be prefilled again, by another
        version if need be. Raises VersionsGoneError when the answer has begun.
        """
        if self._pairing is None:
            return None
        choice = self._pairing.readers(ticket.writer if ticket else None, self._pinned)
        if choice.problem:
            if self._pinned is not None and not choice.passing:
                raise VersionsGoneError(f"the answer cannot be continued: {choice.problem}")
            raise HandoffFailedError(f"no replica may read this KV any more: {choice.problem}")
        return choice.versions

    def began(self, ticket: Ticket | None, replica: str) -> None:
        """A decode replica gave tokens: from now on the answer is theirs, its and the ticket's writer's."""
        if self._pairing is not None and self._pinned is None:
            self._pinned = Pinned(ticket.writer if ticket else None, self._pairing.version(replica))
