"""The three kinds of metrics, as Ray makes them, and what feeds them from sums of ours.

Ray shows them to Prometheus, as `ray_<name>`.
"""

from typing import Protocol

from ray.util.metrics import Counter, Gauge
from ray.util.metrics import Histogram as RayHistogram

from router.histogram import Histogram, bucket

Tags = dict[str, str]


class CounterMetric(Protocol):
    """A number that grows."""

    def inc(self, value: float, tags: Tags) -> None:
        """Add a value above 0."""


class GaugeMetric(Protocol):
    """A number as it is now."""

    def set(self, value: float, tags: Tags) -> None:
        """It is this."""


class HistogramMetric(Protocol):
    """Counts in buckets."""

    def observe(self, value: float, tags: Tags) -> None:
        """One more value."""


class MetricKinds(Protocol):
    """Makes metrics; every call with a name of its own."""

    def counter(self, name: str, description: str, tag_keys: tuple[str, ...]) -> CounterMetric:
        """`name` ends in `_total`."""

    def gauge(self, name: str, description: str, tag_keys: tuple[str, ...]) -> GaugeMetric:
        """`name` ends in its unit."""

    def histogram(
        self, name: str, description: str, boundaries: list[float], tag_keys: tuple[str, ...]
    ) -> HistogramMetric:
        """`name` ends in its unit; `boundaries` are upper bounds, ascending."""


class RayMetrics:
    """Metrics of this Ray process. They may be made before Ray runs, and then wait for it."""

    def counter(self, name: str, description: str, tag_keys: tuple[str, ...]) -> CounterMetric:
        """`MetricKinds.counter`."""
        counter: CounterMetric = Counter(name, description, tag_keys)
        return counter

    def gauge(self, name: str, description: str, tag_keys: tuple[str, ...]) -> GaugeMetric:
        """`MetricKinds.gauge`."""
        gauge: GaugeMetric = Gauge(name, description, tag_keys)
        return gauge

    def histogram(
        self, name: str, description: str, boundaries: list[float], tag_keys: tuple[str, ...]
    ) -> HistogramMetric:
        """`MetricKinds.histogram`."""
        histogram: HistogramMetric = RayHistogram(name, description, boundaries, tag_keys)
        return histogram


class Increments:
    """A Ray counter under a sum that grows: what came since the last time is added, once."""

    def __init__(self, counter: CounterMetric) -> None:
        self._counter = counter
        self._told: dict[tuple[str, ...], float] = {}

    def grown_to(self, value: float, tags: Tags) -> None:
        """The sum is this now, under these tags."""
        key = tuple(tags.values())
        told = self._told.get(key, 0.0)
        if value > told:  # Ray refuses to add nothing
            self._told[key] = value
            self._counter.inc(value - told, tags)


class Observations:
    """A Ray histogram under one of ours, in seconds.

    New values are observed as the middle of their bucket: Ray itself tells its agent no more than that.
    """

    def __init__(self, histogram: HistogramMetric) -> None:
        self._histogram = histogram
        self._told: dict[tuple[str, ...], list[int]] = {}

    def grown_to(self, histogram: Histogram, tags: Tags) -> None:
        """The histogram is this now, under these tags."""
        key = tuple(tags.values())
        counts = histogram.counts.copy()
        told = self._told.get(key)
        if counts == told:
            return
        self._told[key] = counts
        for index, count in enumerate(counts):
            low, high = bucket(index)
            # The last bucket has no middle; twice its lower bound is what Ray takes for it.
            value = (low + high) / 2000 if high > low else low / 500
            for _ in range(count - (told[index] if told else 0)):
                self._histogram.observe(value, tags)
