"""The timing that a spec writes down (`Pool.sim`), so that the `sim` engine and the simulator share it."""

from collections.abc import Sequence
from dataclasses import dataclass

from heliostat.spec import SimTiming
from simulator.timing.base import Chunk, StepLine


@dataclass(frozen=True, slots=True)
class LinearTiming:
    """`Timing` from `SimTiming`: a rate of 0 costs nothing.

    A step of chunks alone takes no `step_ms`: the `sim` engine's prefills have none either.
    """

    spec: SimTiming

    def decode_line(self, requests: int) -> StepLine:
        return StepLine(
            self.spec.step_ms + self.spec.per_request_ms * requests, self.spec.per_kilotoken_ms / 1e3
        )

    def step_ms(self, requests: int, context_tokens: int, chunks: Sequence[Chunk]) -> float:
        decode_ms = 0.0
        if requests or not chunks:
            line = self.decode_line(requests)
            decode_ms = line.base_ms + line.per_token_ms * context_tokens
        new_tokens = sum(chunk.new_tokens for chunk in chunks)
        rate = self.spec.prefill_tokens_per_s
        return decode_ms + (new_tokens / rate * 1e3 if rate else 0.0)

    def handoff_ms(self, num_bytes: int) -> float:
        rate = self.spec.handoff_gib_per_s
        return num_bytes / (rate * 2**30) * 1e3 if rate else 0.0
