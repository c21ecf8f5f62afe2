"""Many decode steps in a row as a closed form.

A batch of b requests with c tokens of context takes `base + per_token * c` for a step (`StepLine`), and every
step adds b tokens of context. So k steps take

    T(k) = k * (base + per_token * c) + per_token * b * k (k - 1) / 2

and one event stands for all steps between two changes of the batch.
"""

import math
from dataclasses import dataclass

from simulator.timing.base import StepLine

MIN_STEP_MS = 1e-3
"""Time has to pass, also where a spec says that steps cost nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """Steps of one batch from `start_s` on. `slow` stretches each; none is shorter than `MIN_STEP_MS`."""

    start_s: float
    requests: int
    context: int
    line: StepLine
    slow: float = 1.0

    def seconds(self, steps: int) -> float:
        """T(steps), in seconds."""
        step = max(self.line.base_ms + self.line.per_token_ms * self.context, MIN_STEP_MS)
        growth = self.line.per_token_ms * self.requests * (steps - 1) / 2
        return steps * (step + growth) * self.slow / 1e3

    def ended(self, now_s: float) -> int:
        """Steps that are over at `now_s`."""
        elapsed = now_s - self.start_s
        steps = self._inverse(elapsed)
        # The root is off by rounding at most.
        while self.seconds(steps + 1) <= elapsed:
            steps += 1
        while steps > 0 and self.seconds(steps) > elapsed:
            steps -= 1
        return steps

    def _inverse(self, elapsed: float) -> int:
        if elapsed <= 0.0:
            return 0
        half_growth = self.line.per_token_ms * self.requests * self.slow / 2e3
        step = max(self.line.base_ms + self.line.per_token_ms * self.context, MIN_STEP_MS)
        step = step * self.slow / 1e3 - half_growth
        if half_growth < 1e-12:
            return int(elapsed / (step + half_growth))
        return int((math.sqrt(step * step + 4 * half_growth * elapsed) - step) / (2 * half_growth))
