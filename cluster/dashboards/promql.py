"""The few forms of PromQL that panels and rules are made of. Metrics are named as in our code.

Ray shows a metric `heliostat_x` to Prometheus as `ray_heliostat_x`. Counters add up over processes; gauges
of a router are its view of the whole, so of several views the largest is taken.
"""

RATE = "$__rate_interval"
"""Grafana's own choice: a few scrapes, or what one pixel shows."""


def metric(name: str, *matchers: str) -> str:
    """`ray_heliostat_<name>{<matchers>}`."""
    return f"ray_heliostat_{name}{{{','.join(matchers)}}}" if matchers else f"ray_heliostat_{name}"


def total(by: str, expr: str) -> str:
    """The sum of each group."""
    return f"sum by ({by}) ({expr})" if by else f"sum ({expr})"


def largest(by: str, expr: str) -> str:
    """The largest of each group."""
    return f"max by ({by}) ({expr})" if by else f"max ({expr})"


def rate(by: str, counter: str, window: str = RATE) -> str:
    """How fast a counter grows, per second."""
    return total(by, f"rate({counter}[{window}])")


def quantile(q: float, by: str, name: str, *matchers: str, window: str = RATE) -> str:
    """Of a histogram of ours, by its name without `_bucket`."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, {rate(grouped, metric(f'{name}_bucket', *matchers), window)})"


def ratio(part: str, whole: str) -> str:
    """Of two expressions with the same labels."""
    return f"{part} / {whole}"
