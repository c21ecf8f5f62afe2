"""Percentiles on plain values."""

import pytest

from cluster.percentiles import Percentiles, percentile


@pytest.mark.parametrize(("percent", "value"), [(0, 10.0), (50, 25.0), (95, 38.5), (100, 40.0)])
def test_a_percentile_is_interpolated(percent: float, value: float) -> None:
    assert percentile([40, 10, 30, 20], percent) == pytest.approx(value)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_what_is_not_known_does_not_count() -> None:
    assert Percentiles.of([None, 3.0, None, 1.0]) == Percentiles(
        mean=2.0, std=1.0, min=1.0, p50=2.0, p90=2.8, p95=2.9, p99=2.98, max=3.0
    )
    assert Percentiles.of([None]) == Percentiles()
