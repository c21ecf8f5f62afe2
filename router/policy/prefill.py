"""Prefill: the replica that has the fewest prompt tokens to compute until this prompt is done."""

from collections.abc import Sequence

from router.policy.base import Candidate, Choice


class FewestQueuedTokens:
    """Prefill time grows with prompt tokens, so queued tokens, not queued requests, are the wait.

    The larger of report and own count holds: the report knows other routers' requests, the own count
    knows requests that the report has not seen yet. Tokens that a replica need not compute count for it;
    of equals, one that has the prompt already, or is just computing it for somebody else, is better.
    """

    def rank(self, candidates: Sequence[Candidate]) -> list[Choice]:
        ranked = sorted(candidates, key=lambda candidate: (_cost(candidate), -candidate.cached_tokens))
        return [
            Choice(
                candidate.replica,
                float(_cost(candidate)),
                f"{_queued(candidate)} prompt tokens queued, {candidate.cached_tokens} cached",
            )
            for candidate in ranked
        ]


def _queued(candidate: Candidate) -> int:
    reported = candidate.load.queued_prompt_tokens if candidate.load else 0
    return max(reported, candidate.in_flight_tokens)


def _cost(candidate: Candidate) -> int:
    """Relative to the others: what the prompt itself costs without a cache is the same everywhere."""
    return _queued(candidate) - candidate.cached_tokens
