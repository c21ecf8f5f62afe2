"""A timing model that is straight in what a step contains, with coefficients that were measured.

No GPU has to be known: this is what an engine on CPU cores, or on anything without a datasheet, gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from heliostat.errors import HeliostatError
from simulator.timing.base import Chunk, StepLine
from simulator.timing.least_squares import fit_relative
from simulator.timing.samples import FrozenFile, Samples

MIN_SAMPLES = 3
"""As many as there are coefficients of a decode step, and of a prefill step."""


class Coefficients(FrozenFile):
    """A decode step: `[1, b, c]`; a prefill step: `[1, new, new * (cached + new / 2)]`; a handoff:
    `[1, bytes]`. All in ms. Without measured handoffs both coefficients are 0, and handoffs are free."""

    decode_step_ms: float = Field(ge=0)
    decode_request_ms: float = Field(ge=0)
    decode_token_ms: float = Field(ge=0, description="Per token of context.")
    prefill_step_ms: float = Field(ge=0)
    prefill_token_ms: float = Field(ge=0)
    prefill_pair_ms: float = Field(ge=0, description="Per pair of a new token and one that it reads.")
    handoff_ms: float = Field(default=0.0, ge=0)
    handoff_gib_ms: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """`Timing` from measured coefficients.

    A step of chunks beside decoding requests takes what both take alone, less the smaller of the two fixed
    parts: the step is begun, and weights are read, once.
    """

    coefficients: Coefficients

    def decode_line(self, requests: int) -> StepLine:
        fitted = self.coefficients
        return StepLine(fitted.decode_step_ms + fitted.decode_request_ms * requests, fitted.decode_token_ms)

    def step_ms(self, requests: int, context_tokens: int, chunks: Sequence[Chunk]) -> float:
        line = self.decode_line(requests)
        decode_ms = line.base_ms + line.per_token_ms * context_tokens
        if not chunks:
            return decode_ms
        fitted = self.coefficients
        prefill_ms = fitted.prefill_step_ms + sum(
            fitted.prefill_token_ms * new + fitted.prefill_pair_ms * new * (context + new / 2)
            for new, context in chunks
        )
        if not requests:
            return prefill_ms
        return decode_ms + prefill_ms - min(fitted.decode_step_ms, fitted.prefill_step_ms)

    def handoff_ms(self, num_bytes: int) -> float:
        return self.coefficients.handoff_ms + self.coefficients.handoff_gib_ms * num_bytes / 2**30


def fit(samples: Samples) -> Coefficients:
    """The coefficients that come nearest to the samples, by relative error; none is negative.

    Raises HeliostatError if there are fewer than `MIN_SAMPLES` decode or prefill steps. Handoffs may be
    missing, and one alone has no latency.
    """
    for what, count in (("decode", len(samples.decode)), ("prefill", len(samples.prefill))):
        if count < MIN_SAMPLES:
            raise HeliostatError(
                f"{count} {what} samples are too few for a calibration: measure at least {MIN_SAMPLES}, of "
                "different sizes"
            )
    decode = _solve(
        [(1.0, each.requests, each.context_tokens) for each in samples.decode],
        [each.step_ms for each in samples.decode],
    )
    prefill = _solve(
        [
            (1.0, each.new_tokens, each.new_tokens * (each.cached_tokens + each.new_tokens / 2))
            for each in samples.prefill
        ],
        [each.ms for each in samples.prefill],
    )
    # Bytes come first: what a single size does not tell apart is bandwidth, not latency.
    handoff = _solve(
        [(each.num_bytes / 2**30, 1.0) for each in samples.handoff], [each.ms for each in samples.handoff]
    )
    return Coefficients(
        decode_step_ms=decode[0],
        decode_request_ms=decode[1],
        decode_token_ms=decode[2],
        prefill_step_ms=prefill[0],
        prefill_token_ms=prefill[1],
        prefill_pair_ms=prefill[2],
        handoff_gib_ms=handoff[0] if handoff else 0.0,
        handoff_ms=handoff[1] if handoff else 0.0,
    )


def _solve(rows: Sequence[Sequence[float]], measured_ms: Sequence[float]) -> list[float]:
    if not rows:
        return []
    return [float(x) for x in fit_relative(np.array(rows, np.float64), np.array(measured_ms, np.float64))]
