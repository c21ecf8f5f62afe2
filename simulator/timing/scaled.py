"""Any timing model, faster or slower by a factor."""

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.timing.base import Chunk, StepLine, Timing


@dataclass(frozen=True, slots=True)
class Scaled:
    """Everything takes `factor` times as long: a slow replica, or one in accelerated time."""

    timing: Timing
    factor: float

    def decode_line(self, requests: int) -> StepLine:
        line = self.timing.decode_line(requests)
        return StepLine(line.base_ms * self.factor, line.per_token_ms * self.factor)

    def step_ms(self, requests: int, context_tokens: int, chunks: Sequence[Chunk]) -> float:
        return self.timing.step_ms(requests, context_tokens, chunks) * self.factor

    def handoff_ms(self, num_bytes: int) -> float:
        return self.timing.handoff_ms(num_bytes) * self.factor
