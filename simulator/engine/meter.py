"""What a replica's steps have taken: sums for the outcome, and the figures that its load carries."""

from collections.abc import Callable

from heliostat.wire import StepTime
from router.step_clock import PrefillRate, StepFit
from simulator.engine.run import Run


class Meter:
    """Sums since the start, and production's own fits of step time and prefill rate."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.busy_s = 0.0
        self.steps = 0
        self.step_requests = 0
        """Decode rows of all steps."""
        self._fit = StepFit(clock)
        self._rate = PrefillRate(clock)

    def ran(self, run: Run, steps: int) -> None:
        """So many steps of a run are over; to the fit they are one, their mean."""
        seconds = run.seconds(steps)
        self._count(seconds, steps, run.requests)
        middle = run.context + run.requests * (steps - 1) // 2
        self._fit.observe(seconds * 1e3 / steps, run.requests, middle)

    def computed(self, requests: int, new_tokens: int, step_ms: float) -> None:
        """A step with chunks is over."""
        self._count(step_ms / 1e3, 1, requests)
        self._rate.observe(new_tokens, step_ms)

    def _count(self, seconds: float, steps: int, requests: int) -> None:
        self.busy_s += seconds
        self.steps += steps
        self.step_requests += steps * requests

    @property
    def tpot_ms(self) -> float:
        """The time of a decode step now."""
        return self._fit.tpot_ms

    @property
    def step(self) -> StepTime:
        """The fit of decode steps."""
        return self._fit.step

    @property
    def prefill_tokens_per_s(self) -> float:
        """While it computes prompts."""
        return self._rate.tokens_per_s
