"""Percentiles of what was measured, without numpy: a client's machine need not have it."""

from collections.abc import Iterable, Sequence
from statistics import fmean, pstdev
from typing import Self

from pydantic import BaseModel, ConfigDict


def percentile(values: Sequence[float], percent: float) -> float:
    """The `percent`-th percentile, interpolated between neighbours. Raises ValueError without values."""
    if not values:
        raise ValueError("no values, so no percentile")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


class Percentiles(BaseModel):
    """Of one latency, ms, with its mean, standard deviation (of the population) and extremes. None where
    nothing was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mean: float | None = None
    std: float | None = None
    min: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, values_ms: Iterable[float | None]) -> Self:
        """Of those that are known."""
        known = sorted(value for value in values_ms if value is not None)
        if not known:
            return cls()
        p50, p90, p95, p99 = (percentile(known, percent) for percent in (50, 90, 95, 99))
        return cls(
            mean=fmean(known),
            std=pstdev(known),
            min=known[0],
            p50=p50,
            p90=p90,
            p95=p95,
            p99=p99,
            max=known[-1],
        )
