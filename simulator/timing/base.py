"""What the engine model asks of a timing model."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class StepLine(NamedTuple):
    """A decode step of a batch whose size stays: `base_ms + per_token_ms * c` for c tokens of context in all.

    A straight line, so that many steps in a row are a closed form (`simulator.engine.run`).
    """

    base_ms: float
    per_token_ms: float


class Chunk(NamedTuple):
    """Part of a prompt in one step: so many new tokens behind so many that have their KV already."""

    new_tokens: int
    context_tokens: int


class Timing(Protocol):
    """One replica: its hardware, its module, its calibration. Times in ms, pure functions."""

    def decode_line(self, requests: int) -> StepLine:
        """A step that computes one token for each of so many requests, and nothing else."""

    def step_ms(self, requests: int, context_tokens: int, chunks: Sequence[Chunk]) -> float:
        """A step that computes the chunks of prompts beside one token for each of so many requests, which
        have `context_tokens` of context in all. Without chunks it is `decode_line`."""

    def handoff_ms(self, num_bytes: int) -> float:
        """Moving so much KV to this replica over a link that does nothing else."""
