import math
import random

import pytest

from heliostat.wire import StepTime
from router.step_clock import (
    MIN_RATE_TOKENS,
    RATE_FRESH_S,
    STEP_FRESH_S,
    PrefillRate,
    StepFit,
)


def _time(step: StepTime, b: int, c: int) -> float:
    return step.base_ms + step.per_request_ms * b + step.per_token_ms * c


def test_nothing_is_known_before_the_first_step() -> None:
    fit = StepFit()
    assert fit.step == StepTime()
    assert fit.tpot_ms == 0.0


def test_recovers_known_coefficients_from_noisy_steps() -> None:
    draw = random.Random(1)
    truth = StepTime(8.0, 0.25, 0.0005)
    fit = StepFit()
    for _ in range(2000):
        b = draw.randint(1, 64)
        c = sum(draw.randint(50, 2000) for _ in range(b))
        fit.observe(_time(truth, b, c) * draw.gauss(1.0, 0.03), b, c)
    assert fit.step.base_ms == pytest.approx(truth.base_ms, rel=0.1)
    assert fit.step.per_request_ms == pytest.approx(truth.per_request_ms, rel=0.2)
    assert fit.step.per_token_ms == pytest.approx(truth.per_token_ms, rel=0.2)
    assert _time(fit.step, 32, 32_000) == pytest.approx(_time(truth, 32, 32_000), rel=0.03)


def test_a_batch_that_never_changes_goes_to_the_base() -> None:
    fit = StepFit()
    for _ in range(300):
        fit.observe(10.0, 4, 4000)
    assert fit.step.base_ms == pytest.approx(10.0)
    assert fit.step.per_request_ms * 1e6 == pytest.approx(0.0, abs=1e-3)
    assert fit.step.per_token_ms * 1e6 == pytest.approx(0.0, abs=1e-3)
    assert fit.tpot_ms == pytest.approx(10.0)


def test_requests_and_context_that_grow_together_still_predict() -> None:
    fit = StepFit()
    for number in range(600):
        b = 1 + number % 32
        fit.observe(5.0 + 0.5 * b, b, 500 * b)
    assert _time(fit.step, 33, 33 * 500) == pytest.approx(5.0 + 0.5 * 33, rel=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_stay_finite_and_never_negative(seed: int) -> None:
    draw = random.Random(seed)
    fit = StepFit()
    for _ in range(200):
        fit.observe(
            draw.choice([0.0, draw.expovariate(1.0), 1e6]), draw.randint(0, 3), draw.randint(0, 10**7)
        )
        step = fit.step
        values = (step.base_ms, step.per_request_ms, step.per_token_ms, fit.tpot_ms)
        assert all(math.isfinite(value) and value >= 0.0 for value in values)


def test_steps_that_get_cheaper_with_the_batch_do_not_make_a_negative_price() -> None:
    fit = StepFit()
    for b in range(1, 200):
        fit.observe(200.0 - b, b, 10 * b)
    assert fit.step.per_request_ms == fit.step.per_token_ms == 0.0


def test_one_stall_hardly_counts() -> None:
    fit = StepFit()
    for _ in range(100):
        fit.observe(10.0, 4, 400)
    fit.observe(60_000.0, 4, 400)
    assert fit.tpot_ms < 15.0
    assert fit.step.base_ms < 11.0


def test_a_slower_replica_is_noticed() -> None:
    fit = StepFit()
    for step_ms in [10.0] * 1000 + [30.0] * 1000:
        fit.observe(step_ms, 4, 400)
    assert fit.tpot_ms == pytest.approx(30.0, rel=0.01)
    assert fit.step.base_ms == pytest.approx(30.0, rel=0.2)


def test_what_makes_no_sense_is_not_observed() -> None:
    fit = StepFit()
    for step_ms, running in ((math.nan, 1), (math.inf, 1), (-1.0, 1), (5.0, 0)):
        fit.observe(step_ms, running, 10)
    assert fit.steps == 0


def test_prefill_rate_weighs_by_tokens_and_follows() -> None:
    rate = PrefillRate()
    assert rate.tokens_per_s == 0.0
    rate.observe(10, 100.0)  # a short prompt is mostly overhead
    rate.observe(5000, 1000.0)
    assert rate.tokens_per_s > 4500
    for _ in range(20):
        rate.observe(5000, 500.0)
    assert rate.tokens_per_s == pytest.approx(10_000, rel=0.01)


def test_prompts_that_take_no_time_have_no_rate() -> None:
    rate = PrefillRate()
    rate.observe(5000, 0.0)
    assert rate.tokens_per_s == 0.0


def test_a_few_tokens_are_no_rate() -> None:
    rate = PrefillRate()
    rate.observe(MIN_RATE_TOKENS - 1, 100.0)
    assert rate.tokens_per_s == 0.0


def test_old_figures_are_withheld_and_measured_anew() -> None:
    """A replica that looked slow once gets no requests, so nothing else would ever correct it."""
    now = 0.0
    rate, fit = PrefillRate(lambda: now), StepFit(lambda: now)
    rate.observe(5000, 5000.0)
    fit.observe(30.0, 4, 100)
    assert (rate.tokens_per_s, fit.step.base_ms) == pytest.approx((1000.0, 30.0))
    now = RATE_FRESH_S + 1
    assert rate.tokens_per_s == 0.0
    assert fit.step.base_ms == pytest.approx(30.0)
    now = STEP_FRESH_S + 1
    assert fit.step == StepTime()
    rate.observe(5000, 500.0)
    assert rate.tokens_per_s == pytest.approx(10_000.0), "the old rate is forgotten"
