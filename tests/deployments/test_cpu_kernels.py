"""Weights of few bits are refused at the start on a CPU that would fail with the first request."""

import platform
from pathlib import Path

import pytest

from deployments.cpu_kernels import check_low_bits, low_bit_problem
from heliostat.errors import HeliostatError

EXAMPLES = Path(__file__).parents[2] / "examples"
INT4 = EXAMPLES / "modules" / "weights" / "base-int4"
DENSE = EXAMPLES / "quickstart" / "weights" / "base"

on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="a rule of x86")


@on_x86
def test_without_avx512_quantized_weights_are_named_with_what_is_missing() -> None:
    with pytest.raises(HeliostatError, match=r"base-int4: weights of few bits need AVX-512 .* has AVX2; use"):
        check_low_bits(INT4, gpus=0, capability="AVX2")


@pytest.mark.parametrize(
    ("weights", "gpus", "capability"), [(INT4, 0, "AVX512"), (INT4, 1, "AVX2"), (DENSE, 0, "AVX2")]
)
def test_everything_else_may_start(weights: Path, gpus: int, capability: str) -> None:
    check_low_bits(weights, gpus, capability)


@on_x86
def test_this_cpu_is_looked_at_when_nobody_says_which() -> None:
    assert low_bit_problem() in ("", low_bit_problem("AVX2"), low_bit_problem("DEFAULT"))
