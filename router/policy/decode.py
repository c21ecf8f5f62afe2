"""Decode: the replica with the least load, asked when there is KV to read."""

from collections.abc import Sequence

from router.policy.base import Candidate, Choice


class LeastLoad:
    """Fewest requests computing or waiting; KV use (0 to 1, so less than one request) breaks ties.

    TPOT grows with the batch, whatever models the batch serves: a decode pool is balanced as one.
    """

    def rank(self, candidates: Sequence[Candidate]) -> list[Choice]:
        return sorted((self._cost(candidate) for candidate in candidates), key=lambda choice: choice.cost)

    def _cost(self, candidate: Candidate) -> Choice:
        load = candidate.load
        requests = max(load.running + load.waiting if load else 0, candidate.in_flight)
        kv_use = load.kv_use if load else 0.0
        return Choice(candidate.replica, requests + kv_use, f"{requests} requests, KV {kv_use:.0%}")
