"""A pool in a few numbers, as telemetry gives them to admission and to metrics."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """One pool at the last beat, over all routers.

    `fresh` of the `replicas` have a reading that is not stale; the others add nothing to the rest, so they
    count as full. `slots` is how many requests they run at a time (the sum of max_running), `running` how
    many they hold by estimate, running or waiting. `free_kv_tokens` is KV space in tokens, infinite when no
    replica says. `prefill_wait_ms` is the shortest wait before a prefill begins.
    """

    replicas: int = 0
    fresh: int = 0
    slots: float = 0.0
    running: float = 0.0
    free_kv_tokens: float = math.inf
    prefill_wait_ms: float = 0.0
