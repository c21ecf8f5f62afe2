import random

import pytest
from pydantic import TypeAdapter, ValidationError

from simulator.workload.lengths import Fixed, Lengths, LogNormal, Uniform


def draw(lengths: Lengths, count: int = 40_000) -> list[int]:
    draw_one = lengths.drawn_from(random.Random("lengths"))
    return [draw_one() for _ in range(count)]


def test_fixed_is_fixed() -> None:
    assert set(draw(Fixed(tokens=7), 10)) == {7}


def test_uniform_reaches_both_ends_evenly() -> None:
    values = draw(Uniform(low=3, high=12))
    assert (min(values), max(values)) == (3, 12)
    assert values.count(3) == pytest.approx(4000, abs=200)
    assert values.count(12) == pytest.approx(4000, abs=200)


@pytest.mark.parametrize(("mean", "cap", "sigma"), [(1024, 8192, 1.0), (256, 1024, 1.0), (300, 400, 2.0)])
def test_a_lognormal_has_its_mean_under_its_cap(mean: float, cap: int, sigma: float) -> None:
    values = draw(LogNormal(mean=mean, cap=cap, sigma=sigma))
    assert sum(values) / len(values) == pytest.approx(mean, rel=0.02)
    assert max(values) == cap
    assert min(values) >= 1


def test_a_plain_number_is_a_fixed_length() -> None:
    assert TypeAdapter[Lengths](Lengths).validate_python(64) == Fixed(tokens=64)


@pytest.mark.parametrize(
    "wrong",
    [
        0,
        True,
        {"kind": "uniform", "low": 5, "high": 4},
        {"kind": "lognormal", "mean": 100, "cap": 100},
        {"kind": "normal", "mean": 100},
    ],
)
def test_lengths_that_cannot_be_are_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Lengths](Lengths).validate_python(wrong)
