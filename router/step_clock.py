"""What an engine's steps have taken so far, as figures that a router can reckon with.

Figures that are old are withheld. A replica that once looked slow gets no requests, so nothing would ever
correct it: without a figure of its own it is taken for a typical one of its pool, and tried again.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from heliostat.wire import StepTime

FORGET = 0.998
"""Weight that an older step keeps at each newer one: some 500 steps count, a few seconds of decoding."""

SHRINK = 1e-4
"""A batch or context that varies by less than a hundredth of its mean explains nothing: the base does."""

TPOT_WEIGHT = 0.1
"""Of the newest step in the exponential average."""

OUTLIER = 5.0
"""A step that takes this much longer than the average was held up by something else; the rest is cut off."""

STEADY_STEPS = 8
"""Steps before which nothing counts as an outlier: the first ones warm up."""

STEP_FRESH_S = 30.0
RATE_FRESH_S = 10.0
"""How long after its last observation a figure counts."""

MIN_RATE_TOKENS = 1024
"""Computed prompt tokens before which there is no rate: a short prompt measures the step, not the tokens."""

RATE_TOKENS = 16_384
"""Computed prompt tokens after which an older rate counts 1/e."""


@dataclass(slots=True)
class _Moments:
    """Decayed sums over (b, c, y): requests, context tokens, milliseconds."""

    n: float = 0.0
    b: float = 0.0
    c: float = 0.0
    y: float = 0.0
    bb: float = 0.0
    cc: float = 0.0
    bc: float = 0.0
    by: float = 0.0
    cy: float = 0.0

    def add(self, b: float, c: float, y: float) -> None:
        self.n = self.n * FORGET + 1.0
        self.b = self.b * FORGET + b
        self.c = self.c * FORGET + c
        self.y = self.y * FORGET + y
        self.bb = self.bb * FORGET + b * b
        self.cc = self.cc * FORGET + c * c
        self.bc = self.bc * FORGET + b * c
        self.by = self.by * FORGET + b * y
        self.cy = self.cy * FORGET + c * y


class StepFit:
    """Fits a decode step's time to `base + per_request * b + per_token * c` while steps are observed.

    Least squares with forgetting and no coefficient below zero. What the steps do not tell apart (a batch
    that never changed) goes to the base. Observing costs a few multiplications; the fit is solved when read.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._observed_at = -math.inf
        self._moments = _Moments()
        self._steps = 0
        self._solved: StepTime | None = StepTime()
        self._tpot_ms = 0.0

    def observe(self, step_ms: float, running: int, context_tokens: int) -> None:
        """One step took so long for that many requests with so many tokens of context in all."""
        if running < 1 or not math.isfinite(step_ms) or step_ms < 0.0:
            return
        self._steps += 1
        if self._steps > STEADY_STEPS and self._tpot_ms > 0.0:
            step_ms = min(step_ms, OUTLIER * self._tpot_ms)
        weight = max(TPOT_WEIGHT, 1.0 / self._steps)
        self._tpot_ms += weight * (step_ms - self._tpot_ms)
        self._moments.add(float(running), float(context_tokens), step_ms)
        self._solved = None
        self._observed_at = self._clock()

    @property
    def steps(self) -> int:
        """Observed so far."""
        return self._steps

    @property
    def tpot_ms(self) -> float:
        """The time of a step now, ms; 0 before the first. Each running request gets one token a step."""
        return self._tpot_ms

    @property
    def step(self) -> StepTime:
        """The coefficients; all zero before the first step, and a while after the last."""
        if self._clock() - self._observed_at > STEP_FRESH_S:
            return StepTime()
        if self._solved is None:
            self._solved = _solve(self._moments)
        return self._solved


def _solve(sums: _Moments) -> StepTime:
    """Around the means, where the slopes show; through the origin where that would take a base below 0."""
    b, c, y = sums.b / sums.n, sums.c / sums.n, sums.y / sums.n
    per_request, per_token = _slopes(
        sums.bb / sums.n - b * b * (1.0 - SHRINK),
        sums.cc / sums.n - c * c * (1.0 - SHRINK),
        sums.bc / sums.n - b * c,
        sums.by / sums.n - b * y,
        sums.cy / sums.n - c * y,
    )
    base = y - per_request * b - per_token * c
    if base < 0.0:
        base = 0.0
        per_request, per_token = _slopes(
            sums.bb / sums.n * (1.0 + SHRINK),
            sums.cc / sums.n * (1.0 + SHRINK),
            sums.bc / sums.n,
            sums.by / sums.n,
            sums.cy / sums.n,
        )
    return StepTime(base, per_request, per_token)


def _slopes(bb: float, cc: float, bc: float, by: float, cy: float) -> tuple[float, float]:
    """The two slopes that are not negative and fit best: both, or the one of them that explains more."""
    determinant = bb * cc - bc * bc
    if determinant > 0.0:
        per_request = (by * cc - cy * bc) / determinant
        per_token = (cy * bb - by * bc) / determinant
        if per_request >= 0.0 and per_token >= 0.0:
            return per_request, per_token
    alone_b = max(0.0, by / bb) if bb > 0.0 else 0.0
    alone_c = max(0.0, cy / cc) if cc > 0.0 else 0.0
    # What one slope alone takes off the squared error is slope * covariance.
    return (alone_b, 0.0) if alone_b * by >= alone_c * cy else (0.0, alone_c)


class PrefillRate:
    """Prompt tokens per second while computing, an average weighted by tokens; 0 while not known."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._observed_at = -math.inf
        self._tokens = 0.0
        self._ms = 0.0

    def observe(self, tokens: int, ms: float) -> None:
        """So many tokens, without those from the cache, were computed in that time."""
        if tokens < 1 or not math.isfinite(ms) or ms < 0.0:
            return
        now = self._clock()
        if now - self._observed_at > RATE_FRESH_S:
            self._tokens = self._ms = 0.0
        self._observed_at = now
        kept = math.exp(-tokens / RATE_TOKENS)
        self._tokens = self._tokens * kept + tokens
        self._ms = self._ms * kept + ms

    @property
    def tokens_per_s(self) -> float:
        """0 as well where prompts take no measurable time."""
        known = self._tokens >= MIN_RATE_TOKENS and self._clock() - self._observed_at <= RATE_FRESH_S
        return self._tokens / self._ms * 1e3 if known and self._ms > 0.0 else 0.0
