"""What a replica of a pool is."""

from dataclasses import dataclass

from simulator.timing.base import Timing


@dataclass(frozen=True, slots=True)
class Profile:
    """Its times, its space and vLLM's limits.

    `keeps_prefixes` is vLLM's prefix cache; off where blocks of several writers would meet (rule 4).
    """

    timing: Timing
    kv_tokens: int
    kv_bytes_per_token: int
    max_running: int
    max_batched_tokens: int
    block_tokens: int
    keeps_prefixes: bool
