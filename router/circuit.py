"""Circuit breaker: a replica that fails again and again is rested, and tried with one request before more.

    closed --failures--> open (resting) --pause over--> half open --one request--> closed, or open for longer

A replica serves one leg, so its name stands for both.
"""

from collections.abc import Callable
from dataclasses import dataclass

MAX_FAILURES = 3
"""Failures in a row that open the circuit."""

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    pause_s: float = 0.0
    """Of the last opening; 0 while closed."""
    open_until: float = 0.0
    trial: bool = False
    """Whether the one request after a rest is under way."""


class CircuitBreaker:
    """All replicas of one router process. `clock` gives monotonic seconds; nothing here waits."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    def failed(self, replica: str, *, lost: bool = False) -> None:
        """A leg failed there. A replica that was lost rests at once, and so does one that fails its trial."""
        circuit = self._circuits.setdefault(replica, _Circuit())
        circuit.failures += 1
        now = self._clock()
        if now < circuit.open_until and not circuit.trial:
            return  # of the calls that were there when it opened, the first has said it all
        if lost or circuit.trial or circuit.failures >= MAX_FAILURES:
            circuit.pause_s = min(circuit.pause_s * 2 or FIRST_PAUSE_S, MAX_PAUSE_S)
            circuit.open_until = now + circuit.pause_s
            circuit.trial = False

    def succeeded(self, replica: str) -> None:
        """A leg succeeded there: all is forgiven."""
        self._circuits.pop(replica, None)

    def tried(self, replica: str) -> None:
        """A request goes there; if it is a trial, the replica rests for all others until its outcome.

        A trial that comes to no end, such as a cancelled one, blocks for one more pause only.
        """
        circuit = self._circuits.get(replica)
        if circuit and circuit.pause_s and self._clock() >= circuit.open_until:
            circuit.open_until = self._clock() + circuit.pause_s
            circuit.trial = True

    def resting(self, replica: str) -> bool:
        """Whether it should get no request now."""
        return self._clock() < self.open_until(replica)

    def open_until(self, replica: str) -> float:
        """When its rest ends, on the clock; 0.0 when the circuit is closed."""
        circuit = self._circuits.get(replica)
        return circuit.open_until if circuit else 0.0

    def keep(self, replicas: set[str]) -> None:
        """Forget every replica but these."""
        for replica in self._circuits.keys() - replicas:
            del self._circuits[replica]
