"""The three kinds of metrics, as Ray makes them; Ray shows them to Prometheus, as `ray_<name>`."""

from typing import Protocol

from ray.util.metrics import Counter, Gauge, Histogram

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
        histogram: HistogramMetric = Histogram(name, description, boundaries, tag_keys)
        return histogram
