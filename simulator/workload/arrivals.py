"""When requests or sessions arrive: endless, rising times in seconds, drawn from the generator that is given.

All processes but `uniform` and `gamma` are Poisson processes, with a rate that may change over time: gaps of
unit mean are stretched by the integral of the rate, which is exact (Lewis & Shedler 1979 call it inversion).
Rates, factors and times must be above 0; `simulator.workload.config` holds users to it.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator

Arrivals = Callable[[random.Random], Iterator[float]]
"""What a workload takes: one of the functions below with its parameters filled in."""


def poisson(rng: random.Random, rate_per_s: float) -> Iterator[float]:
    """Independent users: exponential gaps of mean `1 / rate_per_s`."""
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate_per_s)
        yield at_s


def uniform(rng: random.Random, rate_per_s: float) -> Iterator[float]:
    """Equal gaps; the seed decides only where in the first gap it begins."""
    begin_s = rng.random() / rate_per_s
    return (begin_s + number / rate_per_s for number in itertools.count())


def gamma(rng: random.Random, rate_per_s: float, cv: float) -> Iterator[float]:
    """Gamma gaps of mean `1 / rate_per_s`; `cv` is their standard deviation over their mean.

    1 is `poisson`; above 1, requests come in clumps.
    """
    shape = 1.0 / cv**2
    scale_s = cv**2 / rate_per_s
    at_s = 0.0
    while True:
        at_s += rng.gammavariate(shape, scale_s)
        yield at_s


def bursts(
    rng: random.Random, base_rate_per_s: float, factor: float, burst_s: float, period_s: float
) -> Iterator[float]:
    """A Poisson process whose rate is `factor` times the base rate in the last `burst_s` of every `period_s`.

    `bursts_rate_per_s` is its mean rate. `burst_s` is below `period_s`.
    """
    left = rng.expovariate(1.0)
    for number in itertools.count(1):
        end_s = number * period_s
        phases = (
            (end_s - period_s, end_s - burst_s, base_rate_per_s),
            (end_s - burst_s, end_s, base_rate_per_s * factor),
        )
        for at_s, until_s, rate_per_s in phases:
            while at_s + left / rate_per_s < until_s:
                at_s += left / rate_per_s
                yield at_s
                left = rng.expovariate(1.0)
            left -= (until_s - at_s) * rate_per_s


def bursts_rate_per_s(base_rate_per_s: float, factor: float, burst_s: float, period_s: float) -> float:
    """The mean rate of `bursts` over whole periods."""
    return base_rate_per_s * (1.0 + (factor - 1.0) * burst_s / period_s)


def ramp(rng: random.Random, from_rate_per_s: float, to_rate_per_s: float, ramp_s: float) -> Iterator[float]:
    """A Poisson process whose rate goes from one to the other along a line in `ramp_s`, and stays there."""
    slope = (to_rate_per_s - from_rate_per_s) / ramp_s
    total = (from_rate_per_s + to_rate_per_s) / 2.0 * ramp_s
    mass = 0.0
    while True:
        mass += rng.expovariate(1.0)
        if mass < total:
            # The root of from * t + slope * t^2 / 2 = mass, in the form that also holds for a slope of 0.
            rate_then = math.sqrt(from_rate_per_s**2 + 2.0 * slope * mass)
            yield 2.0 * mass / (from_rate_per_s + rate_then)
        else:
            yield ramp_s + (mass - total) / to_rate_per_s
