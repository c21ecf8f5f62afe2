"""How traced legs found their replicas: noted where that is chosen, asked for when the request is over."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_NOTES = 4096
"""Legs whose request nobody reports (its router's loop died) must not stay for ever; the oldest go first."""


@dataclass(slots=True)
class Routed:
    """The last choice for a leg. Times are seconds, monotonic; `sent_s` is 0 until a replica has taken it.

    `cost` and `reason` are the policy's for its best replica; `choices` counts how often it was asked.
    """

    replica: str
    candidates: int
    cost: float
    reason: str
    chosen_s: float
    choices: int = 1
    sent_s: float = 0.0


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

    def sent(self, leg_id: str, replica: str) -> None:
        """A replica has taken it; Serve may have gone on to another than the best."""
        if note := self._notes.get(leg_id):
            note.replica, note.sent_s = replica, self._clock()

    def take(self, leg_id: str) -> Routed | None:
        """What is noted of a leg, once."""
        return self._notes.pop(leg_id, None)
