"""The closed form of many decode steps against the steps themselves, added up one by one."""

import itertools
import math
import random

import pytest

from simulator.engine.run import MIN_STEP_MS, Run
from simulator.timing.base import StepLine


def _random_run(draw: random.Random) -> Run:
    return Run(
        start_s=draw.choice([0.0, draw.uniform(0, 1e4)]),
        requests=draw.randrange(1, 300),
        context=draw.randrange(0, 200_000),
        line=StepLine(
            draw.choice([0.0, draw.uniform(0.01, 50)]), draw.choice([0.0, 10 ** draw.uniform(-9, -1)])
        ),
        slow=draw.choice([1.0, draw.uniform(1, 20)]),
    )


def _step_ms(run: Run, step: int) -> float:
    """The step after `step` others; growth comes on top of the least that a step takes."""
    growth = run.line.per_token_ms * run.requests * step
    first = run.line.base_ms + run.line.per_token_ms * run.context
    return (max(first, MIN_STEP_MS) + growth) * run.slow


def test_the_closed_form_is_the_sum_of_the_steps() -> None:
    draw = random.Random(1)
    for _ in range(200):
        run = _random_run(draw)
        sums = itertools.accumulate(_step_ms(run, step) / 1e3 for step in range(100))
        for steps, expected in enumerate(sums, start=1):
            assert math.isclose(run.seconds(steps), expected, rel_tol=1e-11)
        assert run.seconds(0) == 0.0


def test_ended_is_the_inverse_before_at_and_after_every_boundary() -> None:
    draw = random.Random(2)
    for _ in range(300):
        run = _random_run(draw)
        for steps in [*range(1, 30), draw.randrange(1_000, 100_000)]:
            # What the clock shows, rounded as a clock of that size rounds.
            boundary_s = run.start_s + run.seconds(steps)
            elapsed_s = boundary_s - run.start_s
            assert run.ended(boundary_s) == (steps if run.seconds(steps) <= elapsed_s else steps - 1)
            margin_s = max(1e-6 * _step_ms(run, steps) / 1e3, 4 * math.ulp(boundary_s))
            assert run.ended(boundary_s - margin_s) == steps - 1
            assert run.ended(boundary_s + margin_s) == steps


def test_with_a_clock_that_starts_at_0_the_boundary_itself_is_exact() -> None:
    draw = random.Random(3)
    for _ in range(300):
        run = Run(0.0, draw.randrange(1, 300), draw.randrange(100_000), StepLine(draw.uniform(0.1, 9), 1e-4))
        for steps in (1, 2, 3, 17, draw.randrange(1, 50_000)):
            assert run.ended(run.seconds(steps)) == steps
            assert run.ended(math.nextafter(run.seconds(steps), 0.0)) == steps - 1


def test_nothing_has_ended_at_the_start_or_before() -> None:
    run = Run(5.0, 4, 100, StepLine(2.0, 0.01))
    assert (run.ended(5.0), run.ended(4.0)) == (0, 0)


def test_steps_that_cost_nothing_take_the_least_time_there_is() -> None:
    run = Run(0.0, 4, 100, StepLine(0.0, 0.0))
    assert run.seconds(1000) == pytest.approx(1000 * MIN_STEP_MS / 1e3)


def test_slow_stretches_every_step() -> None:
    line = StepLine(2.0, 0.5)
    assert Run(0.0, 3, 7, line, slow=4.0).seconds(9) == pytest.approx(4 * Run(0.0, 3, 7, line).seconds(9))
