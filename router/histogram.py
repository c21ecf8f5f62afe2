"""Counts of milliseconds in fixed buckets: what is kept of many measurements, in little memory."""

from bisect import bisect_left

BOUNDS_MS = tuple(float(f"{step}e{decade}") for decade in range(-1, 6) for step in (1, 1.5, 2, 3, 5, 7))
"""Upper bounds, 0.1 ms to 700 s, six a decade: a quantile is off by a fifth of its value, not more.

Fixed, so that histograms of several models, routers and hours can be added up.
"""


class Histogram:
    """`counts[i]` values were at most `BOUNDS_MS[i]`, and above the bound before; the last has no bound."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)

    def __len__(self) -> int:
        """How many values there are."""
        return sum(self.counts)

    def add(self, ms: float, times: int = 1) -> None:
        """The value was seen so many times."""
        self.counts[bisect_left(BOUNDS_MS, ms)] += times

    def merge(self, other: "Histogram") -> None:
        """Add the values of another one."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def quantile(self, q: float) -> float:
        """The value below which a part `q` (0 to 1) of all lie, ms, as if they lay evenly within their
        bucket. 0 without values; the largest bound for what lies above it."""
        rank = q * len(self)
        for index, count in enumerate(self.counts):
            if count and rank <= count:
                low, high = bucket(index)
                return low + (high - low) * rank / count
            rank -= count
        return 0.0


def bucket(index: int) -> tuple[float, float]:
    """Lower and upper bound of a bucket, ms; the last one counts as its lower bound alone."""
    low = BOUNDS_MS[index - 1] if index else 0.0
    return low, BOUNDS_MS[index] if index < len(BOUNDS_MS) else low
