"""Prefill: the replica that has the prompt's KV soonest."""

import numpy as np

from router.policy.base import Candidates, Column, LegRequest, Ranking, median, rank_by
from router.policy.rendezvous import Rendezvous

UNKNOWN_RATE = 1.0
"""Tokens/ms while no replica of the pool has measured its rate: all costs scale alike."""

SAME_RATE = 2.0
"""Rates within this factor of the pool's median are the median: a replica's rate follows the prompts that it
had last, long ones being slower per token. Routers that see the same reports would all choose the one that
had the shortest."""

SAME = 0.01
"""Costs within this share of the best are equal: nobody measures better, and several routers that see
the same reports spread instead of all choosing the one that is best by a hair."""


AGAIN = 1.0
"""What a token that another replica holds costs beside the time for it, if it is said to be asked again."""


class TimeToKv:
    """Milliseconds until the KV is there: the wait for the prompt tokens queued, then the part of this
    prompt that is not cached there.

    A cached prefix is worth the time to compute it and no more. So a replica with a popular prefix takes
    requests until its queue is dearer, then the next one computes the prefix and holds it as well. Of equals,
    one that need not compute is better; else the draw decides, and caches fill evenly. An adapter that has to
    be loaded costs its loading: its requests stay where it is while queues allow it.

    Several models that are asked about one context at the same time find it being computed: to wait for that
    takes as long as to compute it elsewhere, so all replicas would. Where the client says that the prompt's
    beginning is asked more than once, what some replica has of it costs twice to compute again: the client's
    time, and the pool's. And where none has anything, the session's name decides between equals: routers
    that do not know of each other's requests choose the same replica for it.
    """

    def __init__(self) -> None:
        self._rendezvous = Rendezvous()

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        rate = _rates(candidates)
        cached = candidates.cached_tokens
        to_compute = np.maximum(request.num_tokens - cached, 0.0)
        costs = (candidates.queued_tokens + to_compute) / rate + candidates.adapter_ms
        prefer = cached
        if request.returns and len(cached):
            most = cached.max()
            costs = costs + AGAIN * (most - cached) / rate
            if not most:
                prefer = -self._rendezvous.scores(candidates.names, request.session)

        def explain(index: int) -> str:
            queued, cached = candidates.queued_tokens[index], candidates.cached_tokens[index]
            return (
                f"{queued / rate[index]:.1f} ms wait for {queued:.0f} tokens, then "
                f"{to_compute[index] / rate[index]:.1f} ms; {cached:.0f} of {request.num_tokens} cached"
            )

        return rank_by(costs, candidates, request, explain, SAME, prefer=prefer)


def _rates(candidates: Candidates) -> Column:
    """Tokens/ms; only differences that hardware makes."""
    measured = candidates.prefill_rate
    known = measured > 0
    typical = median(measured[known], UNKNOWN_RATE)
    differs = known & ((measured <= typical / SAME_RATE) | (measured >= typical * SAME_RATE))
    return np.where(differs, measured, typical)


class FewestQueuedTokens:
    """Fewest prompt tokens to compute until this prompt is done, whatever the replicas' rates."""

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        costs = candidates.queued_tokens - candidates.cached_tokens
        return rank_by(
            costs,
            candidates,
            request,
            lambda index: (
                f"{candidates.queued_tokens[index]:.0f} prompt tokens queued, "
                f"{candidates.cached_tokens[index]:.0f} cached"
            ),
        )
