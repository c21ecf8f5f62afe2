"""Policies that look at less, for comparison: what they miss is what the defaults are for."""

import numpy as np

from router.policy.base import RANKS, SET_BACK, Candidates, LegRequest, Ranking, rank_by
from router.policy.rendezvous import Rendezvous


class Random:
    """Any replica."""

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        return rank_by(np.zeros(len(candidates.names)), candidates, request, lambda _: "drawn")


class RoundRobin:
    """One after the other; the only state is whose turn it is."""

    def __init__(self) -> None:
        self._turn = 0

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        size = max(len(candidates.names), 1)
        costs = (np.arange(len(candidates.names), dtype=float) - self._turn) % size
        self._turn = (self._turn + 1) % size
        return rank_by(costs, candidates, request, lambda index: f"{costs[index]:.0f} turns away")


class PowerOfTwo:
    """Of two replicas drawn, the one with fewer requests."""

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        requests = candidates.running + candidates.waiting
        usable = np.flatnonzero(~candidates.resting)
        if request.avoid:
            usable = np.array([i for i in usable if candidates.names[i] not in request.avoid], np.intp)
        costs = requests
        if len(usable) > 2:
            # One draw makes both picks: its whole part the first, its fraction the second.
            place = request.draw * len(usable)
            first = int(place)
            second = (first + 1 + int((place - first) * (len(usable) - 1))) % len(usable)
            costs = requests + SET_BACK / RANKS
            costs[usable[[first, second]]] -= SET_BACK / RANKS
        return rank_by(costs, candidates, request, lambda index: f"{requests[index]:.0f} requests")


class LeastRequests:
    """Fewest requests of this router's own in flight, as an ordinary load balancer counts."""

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        in_flight = candidates.in_flight
        return rank_by(in_flight, candidates, request, lambda index: f"{in_flight[index]:.0f} in flight")


class StickySession:
    """The same replica for the same session, by rendezvous hashing: when a replica leaves, only its own
    sessions move. A request without a session goes anywhere."""

    def __init__(self) -> None:
        self._rendezvous = Rendezvous()

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        if not request.session:
            costs = np.zeros(len(candidates.names))
        else:
            costs = self._rendezvous.scores(candidates.names, request.session)
        return rank_by(costs, candidates, request, lambda _: f"session {request.session!r}")
