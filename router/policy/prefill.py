"""Prefill: the replica with the fewest prompt tokens still to compute."""

from collections.abc import Sequence

from router.policy.base import Candidate, Choice


class FewestQueuedTokens:
    """Prefill time grows with prompt tokens, so queued tokens, not queued requests, are the wait.

    The larger of report and own count holds: the report knows other routers' requests, the own count
    knows requests that the report has not seen yet.
    """

    def rank(self, candidates: Sequence[Candidate]) -> list[Choice]:
        return sorted((self._cost(candidate) for candidate in candidates), key=lambda choice: choice.cost)

    def _cost(self, candidate: Candidate) -> Choice:
        reported = candidate.load.queued_prompt_tokens if candidate.load else 0
        queued = max(reported, candidate.in_flight_tokens)
        return Choice(candidate.replica, float(queued), f"{queued} prompt tokens queued")
