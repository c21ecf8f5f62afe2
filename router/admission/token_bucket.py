"""A rate limit that may be overdrawn: what a request costs is known only after it was let in."""

from collections.abc import Callable

BURST_S = 1.0
"""Seconds of its rate that a bucket holds: what an idle model may take at once."""


class TokenBucket:
    """Fills with `rate` units per second, up to a second's worth and at least one unit.

    `clock` is monotonic, in seconds. The level may go below zero (a debt), and nothing passes until the
    rate has paid it, so the average over time keeps to `rate` whatever a single request costs.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._capacity = max(1.0, rate * BURST_S)
        self._level = self._capacity
        self._filled_at_s = clock()

    def wait_s(self, amount: float = 0.0) -> float:
        """Seconds until `amount` may pass; 0: now. An amount above the capacity needs a full bucket."""
        return max(0.0, min(amount, self._capacity) - self._fill()) / self._rate

    def take(self, amount: float) -> None:
        """Take it, in debt if need be."""
        self._level = self._fill() - amount

    def _fill(self) -> float:
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._filled_at_s) * self._rate)
        self._filled_at_s = now
        return self._level
