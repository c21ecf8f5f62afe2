"""How many replicas a prefill pool needs, so that prompts are computed within the TTFT target.

With `arriving` uncached tokens per second, `queued` ones, replicas that compute `rate` tokens per second and
prompts of `s` uncached tokens:

    busy    = (arriving + queued / work_off_s) / rate           replicas that are always busy
    spare   = ln(1 / LATE) * E[s^2] / (2 E[s]) / (rate * wait_s)
    needed  = busy + spare

`spare` is what makes waits short. In a queue with several servers, the chance to wait longer than t falls as
exp(-(spare capacity) * t / (mean rest of a prompt in service)), and E[s^2] / (2 E[s]) is that rest (Kingman's
bound in heavy traffic). `wait_s` is what the target leaves beside computing the prompt itself.
"""

import math

from router.scaling.base import Kind, Need, Reading, ScaledPool, Seen, Served

LATE = 0.05
"""The share of prompts that may wait longer than the target leaves."""

LEAST_WAIT = 0.25
"""Of the target, at least so much counts as time to wait: prompts that are too long for the target itself
are no reason for ever more replicas."""

HEADROOM = 1.25
"""A smaller pool is enough only if it would be for so much more load."""

DEFAULT_TTFT_MS = 2000.0
LOOK_BACK_S = 30.0
"""Over which arrivals are counted."""


def prefill_need(pool: ScaledPool, reading: Reading, rate: float, seen: tuple[Seen, ...]) -> Need | None:
    """The need; None while no replica has computed enough for its rate to be known."""
    if rate <= 0.0:
        return None
    served, arriving = arrivals(seen)
    target_s = (pool.target_ms or DEFAULT_TTFT_MS) / 1e3
    queued = reading.queued_tokens + reading.outside_tokens * _uncached(served)
    # A replica that is asked for now cannot help before it has started.
    work_off_s = max(target_s, pool.start_s)

    def needed(factor: float) -> int:
        busy = (arriving + queued / work_off_s) * factor / rate
        return math.ceil(busy + _spare(served, rate, target_s) * factor) if busy else 0

    reason = (
        f"{arriving:.0f} tokens/s arrive and {queued:.0f} wait, a replica computes {rate:.0f} tokens/s, "
        f"TTFT target {target_s * 1e3:.0f} ms"
    )
    return Need(needed(1.0), needed(HEADROOM), Kind.TTFT, reason)


def arrivals(seen: tuple[Seen, ...]) -> tuple[Served, float]:
    """What was served in the time looked back on, and the uncached tokens that arrived per second."""
    first, last = seen[0].reading, seen[-1].reading
    served, length_s = last.served - first.served, seen[-1].at_s - seen[0].at_s
    if length_s <= 0.0:
        return served, 0.0
    outside = (last.outside_tokens - first.outside_tokens) * _uncached(served)
    arrived = served.computed + last.queued_tokens - first.queued_tokens + outside
    return served, max(0.0, arrived) / length_s


def _uncached(served: Served) -> float:
    """The share of prompt tokens that is computed; who waits in a router has not been looked up yet."""
    return served.computed / served.prompt_tokens if served.prompt_tokens else 1.0


def _spare(served: Served, rate: float, target_s: float) -> float:
    if served.computed <= 0.0 or served.requests <= 0.0:
        return 0.0
    own_s = served.computed / served.requests / rate
    wait_s = max(target_s - own_s, LEAST_WAIT * target_s)
    return -math.log(LATE) * served.squares / (2.0 * served.computed) / (rate * wait_s)
