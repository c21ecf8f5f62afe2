"""Pure choices over plain values: candidates and a request in, a ranking with its reasons out."""

from collections.abc import Callable
from dataclasses import dataclass

from heliostat.wire import Role
from router.policy.base import RANKS, Candidates, LegRequest, Policy, Ranking
from router.policy.baselines import LeastRequests, PowerOfTwo, Random, RoundRobin, StickySession
from router.policy.decode import LeastLoad, MarginalLatency
from router.policy.prefill import FewestQueuedTokens, TimeToKv


@dataclass(frozen=True, slots=True)
class Registered:
    """How a policy is made, one per request router, and for which roles it is."""

    make: Callable[[], Policy]
    roles: frozenset[Role]


_PREFILL, _DECODE = frozenset({Role.PREFILL}), frozenset({Role.DECODE})
_BOTH = _PREFILL | _DECODE

POLICIES: dict[str, Registered] = {
    "time_to_kv": Registered(TimeToKv, _PREFILL),
    "fewest_queued_tokens": Registered(FewestQueuedTokens, _PREFILL),
    "marginal_latency": Registered(MarginalLatency, _DECODE),
    "least_load": Registered(LeastLoad, _BOTH),
    "least_requests": Registered(LeastRequests, _BOTH),
    "power_of_two": Registered(PowerOfTwo, _BOTH),
    "random": Registered(Random, _BOTH),
    "round_robin": Registered(RoundRobin, _BOTH),
    "sticky_session": Registered(StickySession, _BOTH),
}
"""By the name in a spec's `policy`; a new policy is a class and a line here."""

DEFAULTS = {Role.PREFILL: "time_to_kv", Role.DECODE: "marginal_latency"}
"""The policy of a pool whose spec names none."""

__all__ = ["DEFAULTS", "POLICIES", "RANKS", "Candidates", "LegRequest", "Policy", "Ranking", "Registered"]
