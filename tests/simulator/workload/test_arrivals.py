import itertools
import random
from collections.abc import Iterator
from functools import partial

import pytest

from simulator.workload.arrivals import Arrivals, bursts, bursts_rate_per_s, gamma, poisson, ramp, uniform

KINDS: dict[str, Arrivals] = {
    "poisson": partial(poisson, rate_per_s=5.0),
    "uniform": partial(uniform, rate_per_s=5.0),
    "gamma": partial(gamma, rate_per_s=5.0, cv=2.0),
    "bursts": partial(bursts, base_rate_per_s=3.0, factor=5.0, burst_s=10.0, period_s=60.0),
    "ramp": partial(ramp, from_rate_per_s=5.0, to_rate_per_s=5.0, ramp_s=100.0),
}


def until(times: Iterator[float], end_s: float) -> list[float]:
    return list(itertools.takewhile(lambda at_s: at_s < end_s, times))


def gaps(times: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise([0.0, *times])]


def cv_of(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return float((sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5 / mean)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_rising_times_and_another_seed_others(kind: str) -> None:
    one, again, other = (until(KINDS[kind](random.Random(s)), 100.0) for s in ("a", "a", "b"))
    assert len(one) > 300
    assert one == again
    assert one != other
    assert one == sorted(one)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_rate_is_what_was_asked(kind: str) -> None:
    # 5/s over 2,400 s: 12,000 expected; three deviations of a Poisson count are 330, of gamma (cv 2) 660.
    count = len(until(KINDS[kind](random.Random("rate")), 2400.0))
    assert count == pytest.approx(12_000, abs=660 if kind == "gamma" else 330)


@pytest.mark.parametrize(("kind", "cv"), [("poisson", 1.0), ("uniform", 0.0), ("gamma", 2.0)])
def test_gaps_vary_as_much_as_they_should(kind: str, cv: float) -> None:
    assert cv_of(gaps(until(KINDS[kind](random.Random("cv")), 4000.0))) == pytest.approx(cv, abs=0.08)


def test_a_burst_ends_every_period_and_has_its_factor() -> None:
    times = until(KINDS["bursts"](random.Random("bursts")), 6000.0)
    inside = sum(at_s % 60.0 >= 50.0 for at_s in times) / 1000.0
    outside = sum(at_s % 60.0 < 50.0 for at_s in times) / 5000.0
    assert inside == pytest.approx(15.0, abs=0.4)
    assert outside == pytest.approx(3.0, abs=0.1)
    assert bursts_rate_per_s(3.0, 5.0, 10.0, 60.0) == pytest.approx(5.0)


@pytest.mark.parametrize(("begin", "end"), [(0.0, 40.0), (40.0, 10.0)])
def test_a_ramp_goes_along_a_line_and_stays(begin: float, end: float) -> None:
    times = until(ramp(random.Random("ramp"), begin, end, 400.0), 800.0)
    quarters = [sum(i * 100.0 <= at_s < (i + 1) * 100.0 for at_s in times) / 100.0 for i in range(8)]
    expected = [begin + (end - begin) * (i + 0.5) / 4 for i in range(4)] + [end] * 4
    assert quarters == pytest.approx(expected, abs=2.0)
