"""How traced legs found their replicas: noted where that is chosen, asked for when the request is over."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_NOTES = 4096
"""Legs whose request nobody reports (its router's loop died) must not stay for ever; the oldest go first."""


@dataclass(slots=True)
class Routed:
    """The last choice for a leg, at `chosen_s` (seconds, monotonic), and the policy's cost and reason for it.

    `choices` counts how often the policy was asked. When a replica took the leg is not known here: Serve
    says that late, in its throughput mode at the end of the call (Ray 2.60).
    """

    replica: str
    candidates: int
    cost: float
    reason: str
    chosen_s: float
    choices: int = 1


class RouteNotes:
    """Notes of one router process. Serve may call from its router's thread: each call is one dict access."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._notes: OrderedDict[str, Routed] = OrderedDict()

    def chosen(self, leg_id: str, replica: str, candidates: int, cost: float, reason: str) -> None:
        """The policy's best for this leg; Serve may ask again."""
        earlier = self._notes.get(leg_id)
        choices = earlier.choices + 1 if earlier else 1
        self._notes[leg_id] = Routed(replica, candidates, cost, reason, self._clock(), choices)
        if len(self._notes) > MAX_NOTES:
            self._notes.popitem(last=False)

    def take(self, leg_id: str) -> Routed | None:
        """What is noted of a leg, once."""
        return self._notes.pop(leg_id, None)
